"""The real helm, and the values files under the chart's ci/ as cases."""

from __future__ import annotations

import pytest

from localcluster import parts
from support.chart import CASES, Helm, Values


@pytest.fixture(scope="session")
def helm(tmp_path_factory: pytest.TempPathFactory) -> Helm:
    """Return helm without a cluster."""
    return Helm(parts.ensure(["helm"])["helm"], tmp_path_factory.mktemp("helm"))


@pytest.fixture(scope="session", params=list(CASES.values()), ids=list(CASES))
def case(request: pytest.FixtureRequest) -> Values:
    """Return the values of one way to install the chart."""
    values: Values = request.param
    return values
