"""What people see of the kinds through kubectl: columns, explanations, waiting, selecting, and sharing of fields."""

from __future__ import annotations

import json
from typing import Any

import pytest

from localcluster.controlplane import KubectlError
from support.apiserver import ApiServer
from support.samples import adapter, engine, training_job

NAMESPACE = "crd-kubectl"

Object = dict[str, Any]
READY = {
    "type": "Ready",
    "status": "True",
    "reason": "Loaded",
    "message": "Every pod answers.",
    "lastTransitionTime": "2026-01-01T00:00:00Z",
}
STATUS: dict[str, Object] = {
    "LoRAEngine": {
        "baseModel": "acme/tiny-llama",
        "pods": {"ready": 2, "total": 2},
        "adapters": {"loaded": 1, "desired": 3},
    },
    "LoRAAdapter": {
        "current": {"engineName": "crd-kubectl.seen.0123456789ab", "revision": "c0ffee"},
        "replicas": {"desired": 2, "loaded": 1},
    },
    "LoRATrainingJob": {
        "trainerStatus": {
            "progressPercentage": 40,
            "currentStep": 12,
            "metrics": [{"name": "epoch", "value": "1"}, {"name": "loss", "value": "2.71"}],
        },
    },
}


@pytest.fixture(scope="module")
def seen(api: ApiServer) -> ApiServer:
    """Return the apiserver with one object of each kind, each with a status."""
    api.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}})
    for obj in (engine("seen", NAMESPACE), adapter("seen", NAMESPACE), training_job("seen", NAMESPACE)):
        api.create(obj)
        status = STATUS[obj["kind"]] | {"observedGeneration": 1, "conditions": [READY]}
        api.patch(obj, {"status": status}, subresource="status")
    return api


def kubectl(api: ApiServer, *arguments: str, stdin: str | None = None) -> str:
    return api.plane.run_kubectl("--namespace", NAMESPACE, *arguments, stdin=stdin)


@pytest.mark.parametrize(
    ("short", "header", "row"),
    [
        pytest.param(
            "leng",
            ["NAME", "READY", "REASON", "BASE", "PODS", "ADAPTERS", "AGE"],
            ["seen", "True", "Loaded", "acme/tiny-llama", "2", "1"],
            id="an engine",
        ),
        pytest.param(
            "lad",
            ["NAME", "READY", "REASON", "MODEL", "ENGINE", "LOADED", "PODS", "AGE"],
            ["seen", "True", "Loaded", "crd-kubectl.seen.0123456789ab", "vllm-llama", "1", "2"],
            id="an adapter",
        ),
        pytest.param(
            "ltj",
            ["NAME", "READY", "REASON", "PERCENT", "STEP", "LOSS", "AGE"],
            ["seen", "True", "Loaded", "40", "12", "2.71"],
            id="a training job",
        ),
    ],
)
def test_get_tells_the_story_in_one_line(seen: ApiServer, short: str, header: list[str], row: list[str]) -> None:
    first, second = kubectl(seen, "get", short).splitlines()
    assert first.split() == header
    assert second.split()[:-1] == row


def test_the_category_shows_every_kind(seen: ApiServer) -> None:
    names = kubectl(seen, "get", "lora", "--output", "name").split()
    assert sorted(name.partition(".")[0] for name in names) == ["loraadapter", "loraengine", "loratrainingjob"]


@pytest.mark.parametrize("short", ["leng", "lad", "ltj"])
def test_every_kind_can_be_waited_for(seen: ApiServer, short: str) -> None:
    assert "condition met" in kubectl(seen, "wait", "--for=condition=Ready", "--timeout=60s", f"{short}/seen")


@pytest.mark.parametrize(
    ("short", "selector", "found"),
    [
        pytest.param("lad", "spec.engineRef.name=vllm-llama", 1, id="adapters of an engine"),
        pytest.param("lad", "spec.engineRef.name=other", 0, id="adapters of another engine"),
        pytest.param("lad", "spec.baseModel=acme/tiny-llama", 1, id="adapters of a base model"),
        pytest.param("ltj", "spec.baseModel.name=acme/tiny-llama", 1, id="jobs of a base model"),
        pytest.param("ltj", "spec.output.hub.repo=acme/other", 0, id="jobs of another repo"),
        pytest.param("leng", "spec.targetRef.name=seen", 1, id="engines of a Deployment"),
    ],
)
def test_objects_can_be_selected_by_what_they_refer_to(seen: ApiServer, short: str, selector: str, found: int) -> None:
    names = kubectl(seen, "get", short, "--field-selector", selector, "--output", "name").split()
    assert len(names) == found


@pytest.mark.parametrize(
    ("field", "words"),
    [
        pytest.param("loraadapter", "serve this adapter, on that engine", id="a kind"),
        pytest.param("lad.spec.source.hub.revision", "resolved to a commit", id="a field"),
        pytest.param("ltj.spec.lora.loraAlpha", "loraAlpha scales the adapter", id="a field by peft's name"),
        pytest.param("ltj.status.conditions.reason", "one word in CamelCase", id="a field of the status"),
    ],
)
def test_explain_says_what_a_field_means(seen: ApiServer, field: str, words: str) -> None:
    assert words in " ".join(kubectl(seen, "explain", field).split())


def test_a_misspelt_field_is_refused(seen: ApiServer) -> None:
    wrong = adapter("misspelt", NAMESPACE)
    wrong["spec"]["servdName"] = "support"
    with pytest.raises(KubectlError, match=r"unknown field .*spec\.servdName"):
        kubectl(seen, "apply", "--filename", "-", stdin=json.dumps(wrong))


def test_two_managers_share_the_tenants_of_an_adapter(seen: ApiServer) -> None:
    for manager, tenant in (("team-a", "a"), ("team-b", "b")):
        mine = adapter("shared", NAMESPACE)
        mine["spec"]["tenants"] = [{"namespace": tenant}]
        kubectl(seen, "apply", "--server-side", "--field-manager", manager, "--filename", "-", stdin=json.dumps(mine))
    shared = json.loads(kubectl(seen, "get", "lad", "shared", "--output", "json"))
    assert [tenant["namespace"] for tenant in shared["spec"]["tenants"]] == ["a", "b"]
