"""What is not adopted, on a real apiserver: each refusal names its fix in its conditions and an Event."""

from __future__ import annotations

from typing import Any

import pytest

from localcluster import ControlPlane
from support.operating import Operator, eventually
from support.site import Site

Object = dict[str, Any]
SERVE = ["vllm", "serve", "acme/tiny", "--enable-lora"]


def deployment(name: str, *containers: Object, **pod: Any) -> Object:
    app = {"app": name}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name},
        "spec": {
            "selector": {"matchLabels": app},
            "template": {"metadata": {"labels": app}, "spec": {"containers": list(containers)} | pod},
        },
    }


def container(*command: str, name: str = "vllm", **more: Any) -> Object:
    return {"name": name, "image": "example.org/serving:1", "command": list(command)} | more


@pytest.fixture(scope="module")
def site(kinds: ControlPlane, operator: Operator) -> Site:
    """Return one namespace for all rows."""
    return Site.made(kinds, "engine-refusals")


@pytest.mark.parametrize(
    ("row", "containers", "spec", "reason", "fix"),
    [
        ("gone", None, {}, "DeploymentNotFound", "spec.targetRef.name"),
        ("no-such", [container(*SERVE)], {"container": "llm"}, "EngineContainerNotFound", "spec.container"),
        ("two", [container(*SERVE), container(*SERVE, name="b")], {}, "EngineContainerNotFound", "spec.container"),
        ("nginx", [container("nginx")], {}, "NotVLLM", "spec.container"),
        (
            "script",
            [container("bash", "/run-vllm.sh", image="example.org/vllm:1")],
            {},
            "FlagsUnreadable",
            "spec.flags",
        ),
        ("no-lora", [container("vllm", "serve", "acme/tiny")], {}, "LoRANotEnabled", "--enable-lora"),
        ("servers", [container(*SERVE, "--api-server-count=2")], {}, "ApiServerCount", "--api-server-count 1"),
        ("parallel", [container(*SERVE, "-dp", "2")], {}, "ApiServerCount", "--data-parallel-size"),
        ("socket", [container(*SERVE, "--uds=/tmp/s")], {}, "UnixSocket", "--uds"),
        ("nodes", [container(*SERVE, "--nnodes", "2")], {}, "SeveralPods", "--nnodes"),
        ("host", [container(*SERVE, "--host", "10.0.0.1")], {}, "HostNotLocal", "--host 0.0.0.0"),
        ("path", [container("vllm", "serve", "/m", "--enable-lora")], {}, "BaseModelUnknown", "spec.baseModel"),
    ],
)
def test_a_refusal_is_told_at_once_with_its_fix(
    site: Site, *, row: str, containers: list[Object] | None, spec: Object, reason: str, fix: str
) -> None:
    before = site.apply(deployment(row, *containers)) if containers else None
    site.apply(engine(row, **spec))

    assert_refused(site, row, reason, fix)

    after = site.get("deployment", row)
    assert (after and after["spec"]) == (before and before["spec"])
    assert site.get("secret", f"{row}-lora") is None


def test_a_deployment_of_another_controller_is_refused(site: Site) -> None:
    owner = site.apply({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "boss"}})
    owned = deployment("owned", container(*SERVE))
    reference = {"apiVersion": "v1", "kind": "ConfigMap", "name": "boss", "uid": owner["metadata"]["uid"]}
    owned["metadata"]["ownerReferences"] = [reference | {"controller": True}]
    site.apply(owned)
    site.apply(engine("owned"))

    assert_refused(site, "owned", "OwnedByController", "ConfigMap boss")


def test_a_service_called_vllm_is_told_until_service_links_are_off(kinds: ControlPlane, operator: Operator) -> None:
    site = Site.made(kinds, "engine-service-links")
    site.kubectl("create", "service", "clusterip", "vllm", "--tcp=80:8000")
    site.apply(deployment("trapped", container(*SERVE)))
    site.apply(engine("trapped"))

    assert_refused(site, "trapped", "ServiceLinks", "enableServiceLinks: false")

    site.apply(deployment("trapped", container(*SERVE), enableServiceLinks=False))
    site.until("loraengine", "trapped", "Adopted", status="True")


def test_what_somebody_else_made_under_our_name_is_left_alone(kinds: ControlPlane, operator: Operator) -> None:
    site = Site.made(kinds, "engine-names-taken")
    site.kubectl("create", "secret", "generic", "by-secret-lora", "--from-literal=mine=1")
    site.kubectl("create", "configmap", "by-shard-lora-3", "--from-literal=mine=1")
    for name, theirs in (("by-secret", "Secret by-secret-lora"), ("by-shard", "ConfigMap by-shard-lora-3")):
        site.apply(deployment(name, container(*SERVE)))
        site.apply(engine(name))
        assert_refused(site, name, "NameTaken", theirs)
        site.kubectl("delete", "loraengine", name, "--timeout=120s")

    assert (site.get("secret", "by-secret-lora") or {})["data"].keys() == {"mine"}
    assert (site.get("configmap", "by-shard-lora-3") or {})["data"] == {"mine": "1"}


def test_a_quota_that_leaves_no_room_beside_the_engine_is_told(kinds: ControlPlane, operator: Operator) -> None:
    site = Site.made(kinds, "engine-quota")
    site.kubectl("create", "quota", "few", "--hard=count/configmaps=3")
    eventually(lambda: (site.get("quota", "few") or {}).get("status", {}).get("hard"), "the quota to be in force")
    site.apply(deployment("cramped", container(*SERVE)))
    site.apply(engine("cramped"))

    assert_refused(site, "cramped", "WriteRefused", "exceeded quota: few")

    site.kubectl("delete", "quota", "few")
    site.until("loraengine", "cramped", "Adopted", status="True")


def test_a_missing_flag_that_is_added_is_seen_without_a_nudge(kinds: ControlPlane, operator: Operator) -> None:
    site = Site.made(kinds, "engine-flag-added")
    site.apply(deployment("llm", container("vllm", "serve", "acme/tiny")))
    site.apply(engine("llm"))
    site.until("loraengine", "llm", "Ready", status="False", reason="LoRANotEnabled")

    site.apply(deployment("llm", container(*SERVE)))

    site.until("loraengine", "llm", "Adopted", status="True")
    assert site.condition("loraengine", "llm", "Stalled") is None


def engine(name: str, **spec: Any) -> Object:
    return {
        "apiVersion": "lora-operator.io/v1alpha1",
        "kind": "LoRAEngine",
        "metadata": {"name": name},
        "spec": {"targetRef": {"name": name}} | spec,
    }


def assert_refused(site: Site, name: str, reason: str, fix: str) -> None:
    """Look for the refusal in each condition and in an Event."""
    for condition, status in (("Ready", "False"), ("Adopted", "False"), ("Stalled", "True")):
        told = site.until("loraengine", name, condition, status=status, reason=reason)
        assert fix in told["message"]
    [event] = eventually(lambda: [event for event in site.events_of(name) if event["reason"] == reason], "an Event")
    assert (event["type"], fix in event["note"]) == ("Warning", True)
