"""Values that are not as they should be are refused by their name, before anything is installed."""

from __future__ import annotations

from typing import Any

import pytest

from generators import chart
from support.chart import CHART, Helm, HelmError

REFUSED = [
    pytest.param({"operators": {}}, "'operators' not allowed", id="a section with a typo"),
    pytest.param({"operator": {"worker": 2}}, "at '/operator': additional properties 'worker'", id="a typo"),
    pytest.param({"agent": {"image": {"sha": "x"}}}, "at '/agent/image': additional properties 'sha'", id="deeper"),
    pytest.param({"hub": {"endpoint": "hub.example.com"}}, "at '/hub/endpoint'", id="a Hub without a scheme"),
    pytest.param({"operator": {"image": {"digest": "abc"}}}, "at '/operator/image/digest'", id="half a digest"),
    pytest.param({"operator": {"workers": "8"}}, "at '/operator/workers'", id="text for a number"),
    pytest.param({"operator": {"logLevel": "LOUD"}}, "at '/operator/logLevel'", id="an unknown log level"),
    pytest.param({"imagePullSecrets": ["name"]}, "at '/imagePullSecrets/0'", id="a pull secret as text"),
    pytest.param({"caBundle": "/etc/ssl/ca.pem"}, "at '/caBundle'", id="a path for certificates"),
    pytest.param({"watch": {"namespaces": "team-a"}}, "at '/watch/namespaces'", id="text for a list"),
    pytest.param({"trainer": {"env": [{"key": "A"}]}}, "at '/trainer/env/0'", id="an env entry without a name"),
    pytest.param({"agent": {"resources": {"limit": {}}}}, "at '/agent/resources'", id="a typo in resources"),
    pytest.param({"progress": {"port": 443}}, "at '/progress/port'", id="a port that needs root"),
]


@pytest.mark.parametrize(("values", "named"), REFUSED)
def test_a_wrong_value_is_refused_by_its_name(helm: Helm, values: dict[str, Any], named: str) -> None:
    with pytest.raises(HelmError) as refusal:
        helm("template", str(CHART), values=values)
    assert named in str(refusal.value)


def test_the_chart_can_be_a_dependency(helm: Helm) -> None:
    assert helm.render({"global": {"anything": 1}}) == helm.render()


def test_a_value_without_a_comment_is_an_error_of_the_generator() -> None:
    with pytest.raises(ValueError, match=r"values.yaml: a.c has no comment"):
        chart.values("a:\n  # -- One.\n  b: 1\n  c: 2\n")


def test_the_generator_reads_types_defaults_and_what_narrows_them() -> None:
    (one, two) = chart.values("a:\n  # -- One.\n  # @schema {minimum: 1}\n  b: 1\n# -- Two | three.\nc: {d: e}\n")
    assert (one.name, one.default, one.schema()) == (
        "a.b",
        1,
        {"description": "One.", "type": "integer", "minimum": 1},
    )
    assert (two.name, two.default, two.schema()["type"]) == ("c", {"d": "e"}, "object")
    assert chart.schema([one])["properties"]["a"]["additionalProperties"] is False
    assert '| `c` | `{"d": "e"}` | Two \\| three. |' in chart.table([two])
