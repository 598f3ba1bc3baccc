"""What may change on an object that exists, at a real apiserver."""

from __future__ import annotations

from typing import Any

import pytest

from support.apiserver import ApiServer, RefusedError
from support.samples import adapter, engine, training_job, varied

NAMESPACE = "crd-tests"

Object = dict[str, Any]


def flat(fields: Object, path: str = "") -> Object:
    """Return nested fields by their dotted paths."""
    found: Object = {}
    for name, value in fields.items():
        found |= flat(value, f"{path}{name}.") if isinstance(value, dict) else {f"{path}{name}": value}
    return found


@pytest.fixture(scope="module")
def stored(api: ApiServer) -> dict[str, Object]:
    """Return one stored object of each kind."""
    job = varied(training_job("stored", NAMESPACE), {"spec.engineRef": {"name": "vllm-llama"}})
    return {obj["kind"]: api.create(obj) for obj in (engine("stored", NAMESPACE), adapter("stored", NAMESPACE), job)}


@pytest.mark.parametrize(
    ("kind", "spec"),
    [
        pytest.param("LoRAEngine", {"agent": {"image": "example.com/agent:2"}}, id="an engine's agent"),
        pytest.param("LoRAEngine", {"allowedNamespaces": {"from": "All"}}, id="who may use an engine"),
        pytest.param("LoRAAdapter", {"source": {"hub": {"revision": "v2"}}}, id="an adapter's revision"),
        pytest.param("LoRAAdapter", {"servedName": "other"}, id="an adapter's served name"),
        pytest.param("LoRAAdapter", {"tenants": [{"namespace": "team-b"}]}, id="an adapter's tenants"),
        pytest.param("LoRATrainingJob", {"suspend": True}, id="whether a job runs"),
        pytest.param("LoRATrainingJob", {"activeDeadlineSeconds": 7200}, id="how long a job runs"),
        pytest.param("LoRATrainingJob", {"ttlSecondsAfterFinished": 60}, id="how long a job is kept"),
        pytest.param("LoRATrainingJob", {"training": {"learningRate": "2e-4"}}, id="the default that was meant anyway"),
    ],
)
def test_this_may_change(api: ApiServer, stored: dict[str, Object], kind: str, spec: Object) -> None:
    after = api.patch(stored[kind], {"spec": spec}, dry_run=True)
    assert after["spec"] == varied(stored[kind]["spec"], flat(spec))


@pytest.mark.parametrize(
    ("kind", "spec", "named"),
    [
        pytest.param("LoRAEngine", {"targetRef": {"name": "other"}}, "targetRef is immutable", id="an engine's target"),
        pytest.param(
            "LoRAAdapter", {"engineRef": {"name": "other"}}, "engineRef is immutable", id="an adapter's engine"
        ),
        pytest.param(
            "LoRAAdapter", {"engineRef": {"namespace": "other"}}, "engineRef is immutable", id="an engine's namespace"
        ),
        pytest.param("LoRATrainingJob", {"baseModel": {"name": "other"}}, "baseModel is immutable", id="a job's base"),
        pytest.param("LoRATrainingJob", {"dataset": {"split": "test"}}, "dataset is immutable", id="a job's data"),
        pytest.param("LoRATrainingJob", {"lora": {"r": 8}}, "lora is immutable", id="a job's rank"),
        pytest.param("LoRATrainingJob", {"training": {"seed": 1}}, "training is immutable", id="a job's seed"),
        pytest.param("LoRATrainingJob", {"engineRef": None}, "engineRef is immutable", id="a job's engine, taken away"),
        pytest.param(
            "LoRATrainingJob", {"resources": {"limits": {"cpu": 1}}}, "resources is immutable", id="resources, added"
        ),
        pytest.param("LoRATrainingJob", {"nodeSelector": {"a": "b"}}, "nodeSelector is immutable", id="a node, added"),
        pytest.param("LoRATrainingJob", {"tolerations": [{}]}, "tolerations is immutable", id="a toleration, added"),
        pytest.param("LoRATrainingJob", {"serviceAccountName": "a"}, "serviceAccountName is", id="an account, added"),
        pytest.param("LoRATrainingJob", {"priorityClassName": "a"}, "priorityClassName is", id="a priority, added"),
        pytest.param("LoRATrainingJob", {"backoffLimit": 5}, "backoffLimit is immutable", id="a job's retries"),
        pytest.param(
            "LoRATrainingJob", {"output": {"hub": {"repo": "acme/other"}}}, "output is immutable", id="a job's output"
        ),
    ],
)
def test_this_may_not_change(api: ApiServer, stored: dict[str, Object], kind: str, spec: Object, named: str) -> None:
    with pytest.raises(RefusedError, match=named):
        api.patch(stored[kind], {"spec": spec}, dry_run=True)


@pytest.mark.parametrize("kind", ["LoRAEngine", "LoRAAdapter", "LoRATrainingJob"])
def test_a_status_changes_no_generation(api: ApiServer, stored: dict[str, Object], kind: str) -> None:
    status = {"status": {"observedGeneration": 1}}
    assert api.patch(stored[kind], status, subresource="status")["metadata"]["generation"] == 1


def test_a_status_is_not_written_with_the_spec(api: ApiServer, stored: dict[str, Object]) -> None:
    status = {"status": {"replicas": {"loaded": 7}}}
    assert "replicas" not in api.patch(stored["LoRAAdapter"], status, dry_run=True).get("status", {})


def test_a_condition_has_the_limits_of_kubernetes_own(api: ApiServer, stored: dict[str, Object]) -> None:
    condition = {"type": "Ready", "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z", "reason": "Loaded"}
    api.patch(stored["LoRAAdapter"], {"status": {"conditions": [condition]}}, subresource="status", dry_run=True)
    for wrong in ({"status": "yes"}, {"reason": "not one word"}, {"lastTransitionTime": "today"}):
        patch = {"status": {"conditions": [condition | wrong]}}
        with pytest.raises(RefusedError, match=next(iter(wrong))):
            api.patch(stored["LoRAAdapter"], patch, subresource="status", dry_run=True)
