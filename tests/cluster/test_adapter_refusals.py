"""What is not served, on a real apiserver with a real agent: each refusal names its fix in a condition and an Event.

One engine for all rows: it serves a good adapter all the while, and nothing of anybody is touched.
"""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from hubserver import Hub
from localcluster import ControlPlane, audit
from support.adapters import AdapterFiles, make_adapter, other_base
from support.operating import Operator, eventually
from support.serving import BASE, ServingSite, adapter, deployment, engine
from support.site import Site

Object = dict[str, Any]
NAMESPACE = "adapter-refusals"


@pytest.fixture(scope="module")
def site(
    kinds: ControlPlane, operator: Operator, hub: Hub, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ServingSite]:
    """Return a namespace with an engine that serves a good adapter, and somebody else's Deployment beside it."""
    root = tmp_path_factory.mktemp("refusals")
    with ServingSite.running(kinds, NAMESPACE, hub=hub, root=root) as running:
        running.apply(deployment("somebody-elses", command=("nginx",)))
        running.publish("acme/good", make_adapter(seed=7))
        running.apply(adapter("good", repo="acme/good"))
        running.ready("good")
        for secret, token in (("wrong", "hf_wrong"), ("stranger", "hf_other"), ("right", "hf_read")):
            running.kubectl("create", "secret", "generic", secret, f"--from-literal=token={token}")
        running.publish("acme/private", make_adapter(seed=8), private=True)
        yield running


def surroundings(site: Site, operator: Operator) -> Callable[[], None]:
    """Return what checks that from now on nobody else's object was written, and no pod came or went."""
    since = dt.datetime.now(dt.UTC)
    pods = {pod["metadata"]["uid"] for pod in site.items("pods")}
    deployments = {item["metadata"]["name"]: item["spec"] for item in site.items("deployments")}

    def check() -> None:
        assert {pod["metadata"]["uid"] for pod in site.items("pods")} == pods
        assert {item["metadata"]["name"]: item["spec"] for item in site.items("deployments")} == deployments
        written = audit.writes(site.plane.audit_log, user=operator.user, since=since)
        kinds = {write.resource for write in written if write.namespace == site.namespace}
        assert kinds <= {"loraadapters", "loraengines", "events", "configmaps", "secrets"}

    return check


def assert_refused(site: Site, name: str, condition: str, reason: str, words: tuple[str, ...]) -> Object:
    """Look for the refusal in Ready, in the condition of its stage and in an Event; return Ready."""
    ready = site.until("loraadapter", name, "Ready", status="False", reason=reason)
    stage = site.condition("loraadapter", name, condition)
    assert stage is not None
    assert (stage["reason"], stage["status"] != "True" or condition in {"Stalled", "Reconciling"}) == (reason, True)
    [event] = eventually(lambda: [found for found in site.events_of(name) if found["reason"] == reason], "an Event")
    for word in words:
        assert word in ready["message"]
        assert word in event["note"]
    assert "hf_" not in json.dumps([ready, event]), "no token is shown"
    return ready


def hub_source(repo: str, **more: Any) -> Object:
    return {"source": {"hub": {"repo": repo} | more}}


def token(secret: str) -> Object:
    return {"tokenSecretRef": {"name": secret, "key": "token"}}


TOKEN_FIELD = "spec.source.hub.tokenSecretRef"


@pytest.mark.parametrize(
    ("name", "spec", "condition", "reason", "words"),
    [
        ("nowhere", hub_source("acme/nowhere"), "Resolved", "HubUnauthorized", ("spec.source.hub.repo",)),
        (
            "nowhere-with-token",
            hub_source("acme/nowhere", **token("right")),
            "Resolved",
            "RepositoryNotFound",
            ("spec.source.hub.repo",),
        ),
        ("no-token", hub_source("acme/private"), "Resolved", "HubUnauthorized", ("acme/private", TOKEN_FIELD)),
        (
            "wrong-token",
            hub_source("acme/private", **token("wrong")),
            "Resolved",
            "HubUnauthorized",
            ("refuses the token", TOKEN_FIELD),
        ),
        (
            "strangers-token",
            hub_source("acme/private", **token("stranger")),
            "Resolved",
            "RepositoryNotFound",
            ("acme/private", TOKEN_FIELD),
        ),
        (
            "no-secret",
            hub_source("acme/private", **token("absent")),
            "Resolved",
            "TokenSecretNotFound",
            (TOKEN_FIELD, "absent"),
        ),
        (
            "no-key",
            hub_source("acme/private", tokenSecretRef={"name": "right", "key": "other"}),
            "Resolved",
            "TokenSecretNotFound",
            (TOKEN_FIELD, "other"),
        ),
        (
            "no-revision",
            hub_source("acme/good", revision="v9"),
            "Resolved",
            "RevisionNotFound",
            ("v9", "spec.source.hub.revision"),
        ),
        (
            "no-training",
            {"source": {"trainingJobRef": {"name": "absent"}}},
            "Resolved",
            "TrainingJobNotFound",
            ("spec.source.trainingJobRef", "absent"),
        ),
        (
            "no-engine",
            hub_source("acme/good") | {"engineRef": {"name": "absent"}},
            "Stalled",
            "EngineNotFound",
            ("spec.engineRef", "absent"),
        ),
        (
            "other-base-name",
            hub_source("acme/good") | {"baseModel": "acme/another"},
            "Stalled",
            "BaseModelMismatch",
            ("spec.baseModel", BASE),
        ),
    ],
)
def test_what_can_not_be_had_is_refused(
    site: ServingSite,
    operator: Operator,
    *,
    name: str,
    spec: Object,
    condition: str,
    reason: str,
    words: tuple[str, ...],
) -> None:
    check, manifest = surroundings(site, operator), site.manifest()
    site.apply(adapter(name, **spec))

    assert_refused(site, name, condition, reason, words)

    assert site.condition("loraadapter", name, "Stalled") is not None
    assert site.manifest() == manifest
    check()


@pytest.mark.parametrize(
    ("name", "make", "reason", "words"),
    [
        ("rank", lambda: make_adapter(rank=64), "RankTooHigh", ("64", "--max-lora-rank")),
        ("shapes", lambda: make_adapter(base=other_base()), "ShapeMismatch", ("q_proj",)),
        ("dora", lambda: make_adapter(config={"use_dora": True}), "DoRANotSupported", ("use_dora",)),
        ("bias", lambda: make_adapter(config={"bias": "all"}), "BiasNotSupported", ("bias",)),
        (
            "modules-to-save",
            lambda: make_adapter(config={"modules_to_save": ["lm_head"]}),
            "ModulesToSaveNotSupported",
            ("modules_to_save",),
        ),
        ("truncated", lambda: make_adapter().truncated(100), "TruncatedFile", ("adapter_model.safetensors",)),
        ("pickle", lambda: make_adapter().pickle_only(), "PickleOnly", ("adapter_model.bin", "safetensors")),
    ],
)
def test_what_no_engine_would_serve_right_is_refused_before_any_pod_hears_of_it(
    site: ServingSite,
    operator: Operator,
    *,
    name: str,
    make: Callable[[], AdapterFiles],
    reason: str,
    words: tuple[str, ...],
) -> None:
    check, manifest, loads = surroundings(site, operator), site.manifest(), site.loads()
    site.publish(f"acme/{name}", make())
    site.apply(adapter(name, repo=f"acme/{name}"))

    assert_refused(site, name, "Compatible", reason, words)

    resolved = site.condition("loraadapter", name, "Resolved")
    assert resolved is not None
    assert resolved["status"] == "True"
    assert site.condition("loraadapter", name, "Stalled") is not None
    assert (site.manifest(), site.loads()) == (manifest, loads)
    check()


@pytest.mark.parametrize(
    ("name", "make", "reason", "words"),
    [
        ("nan", lambda: make_adapter(seed=21).spoilt(nan=True), "NotFinite", ("NaN",)),
        ("tampered", lambda: make_adapter(seed=22), "DigestMismatch", ("adapter_model.safetensors",)),
    ],
)
def test_what_only_the_agent_can_see_never_reaches_the_engine_and_the_rest_goes_on(
    site: ServingSite,
    operator: Operator,
    *,
    name: str,
    make: Callable[[], AdapterFiles],
    reason: str,
    words: tuple[str, ...],
) -> None:
    check, loads = surroundings(site, operator), site.loads()
    site.publish(f"acme/{name}", make())
    if name == "tampered":
        site.hub.tamper("acme/tampered", "adapter_model.safetensors")
    site.apply(adapter(name, repo=f"acme/{name}"))

    assert_refused(site, name, "Loaded", reason, words)

    assert site.condition("loraadapter", name, "Stalled") is not None
    assert site.loads() == loads
    assert site.engine_name("good") in site.pods.pods[0].engine.adapters
    assert all(pod.ready for pod in site.pods.pods), "the base serves on"
    check()
    site.kubectl("delete", "loraadapter", name, "--timeout=120s")


def test_a_namespace_that_the_engine_does_not_allow_is_refused(site: ServingSite, operator: Operator) -> None:
    outside = Site.made(site.plane, f"{NAMESPACE}-outside")
    manifest = site.manifest()
    outside.apply(adapter("stranger", repo="acme/good", engineRef={"name": "llama", "namespace": NAMESPACE}))

    assert_refused(outside, "stranger", "Stalled", "NamespaceNotAllowed", ("spec.allowedNamespaces", outside.namespace))

    assert site.manifest() == manifest


def test_a_namespace_that_is_shut_out_again_has_its_adapters_unloaded(site: ServingSite, operator: Operator) -> None:
    outside = Site.made(site.plane, f"{NAMESPACE}-guest")
    loaded = site.pods.pods[0].engine.adapters
    site.apply(engine(allowedNamespaces={"from": "All"}))
    outside.apply(adapter("guest", repo="acme/good", engineRef={"name": "llama", "namespace": NAMESPACE}))
    outside.until("loraadapter", "guest", "Ready", status="True")
    assert [name for name in loaded if name.startswith(f"{outside.namespace}.guest.")]

    site.apply(engine(allowedNamespaces={"from": "Same"}))

    assert_refused(outside, "guest", "Stalled", "NamespaceNotAllowed", ("spec.allowedNamespaces",))
    eventually(lambda: not [name for name in loaded if name.startswith(outside.namespace)], "the guest to be unloaded")
    assert site.engine_name("good") in loaded, "nobody else's adapter goes"
    site.apply(engine(allowedNamespaces={"from": "All"}))
    outside.until("loraadapter", "guest", "Ready", status="True")


@pytest.mark.parametrize(
    ("name", "command", "words"),
    [
        ("gone", None, ("DeploymentNotFound", "spec.targetRef.name")),
        ("no-lora", ("vllm", "serve", BASE), ("LoRANotEnabled", "--enable-lora")),
        ("no-vllm", ("nginx",), ("NotVLLM", "spec.container")),
    ],
)
def test_an_engine_that_is_not_adopted_passes_its_own_reason_on(
    site: ServingSite, operator: Operator, *, name: str, command: tuple[str, ...] | None, words: tuple[str, ...]
) -> None:
    if command is not None:
        site.apply(deployment(name, command=command))
    site.apply(engine(name, target=name))
    site.until("loraengine", name, "Ready", status="False")
    site.apply(adapter(f"on-{name}", repo="acme/good", engineRef={"name": name}))

    assert_refused(site, f"on-{name}", "Reconciling", "EngineNotReady", words)


def test_a_base_that_nobody_can_read_is_unknown_and_names_it(site: ServingSite, operator: Operator) -> None:
    unknown = "acme/unknown-base"
    site.apply(deployment("unknown", command=("vllm", "serve", unknown, "--enable-lora")))
    site.apply(engine("unknown", target="unknown"))
    site.until("loraengine", "unknown", "Adopted", status="True")
    site.publish("acme/on-unknown", make_adapter(config={"base_model_name_or_path": unknown}))
    site.apply(adapter("on-unknown", repo="acme/on-unknown", baseModel=unknown, engineRef={"name": "unknown"}))

    site.until("loraadapter", "on-unknown", "Compatible", status="Unknown", reason="BaseNotReadable")
    assert_refused(site, "on-unknown", "Compatible", "BaseNotReadable", ("base model",))


def test_a_hub_that_answers_503_for_a_while_is_waited_for(site: ServingSite, operator: Operator) -> None:
    site.publish("acme/patient", make_adapter(seed=30))
    site.hub.fault("acme/patient", status=503, times=-1)
    site.apply(adapter("patient", repo="acme/patient"))

    told = assert_refused(site, "patient", "Resolved", "HubUnavailable", ("503", "trying again"))
    site.hub.clear_faults()

    assert told["status"] == "False"
    assert site.condition("loraadapter", "patient", "Stalled") is None
    site.ready("patient")


def test_a_refusal_ends_when_its_cause_is_mended(site: ServingSite, operator: Operator) -> None:
    site.apply(adapter("mended", **hub_source("acme/private")))
    site.until("loraadapter", "mended", "Ready", status="False", reason="HubUnauthorized")

    site.apply(adapter("mended", **hub_source("acme/private", **token("right"))))

    site.ready("mended")
    assert site.condition("loraadapter", "mended", "Stalled") is None
