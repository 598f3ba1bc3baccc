"""An engine pod that hangs delays itself alone: no other pod, no other adapter, and no deletion beyond its bound."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from support.adapters import make_adapter
from support.crashing import Ground
from support.engine_pods import EnginePod, EnginePods
from support.operating import eventually, running_operator
from support.serving import ServingSite, adapter, deployment, engine

NAMESPACE = "faults-hangs"
CLEANUP_SECONDS = 15


@pytest.fixture(scope="module")
def site(ground: Ground) -> Iterator[ServingSite]:
    """Return a namespace with two engine pods and an operator that gives deletions little time."""
    settings = {
        "namespace": NAMESPACE,
        "watch_namespaces": NAMESPACE,
        "cleanup_seconds": str(CLEANUP_SECONDS),
        "HF_ENDPOINT": ground.hub.url,
        "HF_HUB_DISABLE_XET": "1",
    }
    root = ground.root / NAMESPACE
    with (
        running_operator(ground.plane, root, **settings),
        ServingSite.running(ground.plane, NAMESPACE, hub=ground.hub, root=root / "llama", replicas=2) as running,
    ):
        yield running


@pytest.fixture
def hung(site: ServingSite) -> Iterator[EnginePod]:
    """Return the pod whose agent takes connections and answers none, though kubelet finds it Ready; it heals after."""
    pod, _ = site.pods.wait_ready(2)
    site.pods.cut_off(pod)
    yield pod
    site.pods.restart_agent(pod)


def test_others_go_on_while_a_pod_hangs(site: ServingSite, hung: EnginePod, ground: Ground) -> None:
    for name in ("first", "second"):
        site.publish(f"acme/hangs-{name}", make_adapter(seed=len(name)))
        site.apply(adapter(name, repo=f"acme/hangs-{name}"))
    site.apply(deployment("vllm-other"))
    site.apply(engine("other", target="vllm-other"))
    site.publish("acme/hangs-elsewhere", make_adapter())
    elsewhere = adapter("elsewhere", repo="acme/hangs-elsewhere")
    elsewhere["spec"]["engineRef"] = {"name": "other"}

    well = next(pod for pod in site.pods.pods if pod is not hung)
    eventually(lambda: _adapters(well) == {"first", "second"}, "the other pod to load both")
    root = ground.root / "other-pods"
    with EnginePods.acting(ground.plane, NAMESPACE, "other", hub_url=ground.hub.url, root=root) as others:
        others.wait_ready(1)
        site.apply(elsewhere)
        site.ready("elsewhere")

    for name in ("first", "second"):
        # One that both pods held before, or that was loaded while the pod was not Ready, has two minutes of grace.
        eventually(lambda name=name: _told(site, name) == (hung.name, "AgentUnreachable"), f"{name}", deadline=300)


def _told(site: ServingSite, name: str) -> tuple[str, str] | None:
    """Return which pod the status of an adapter that is not Ready names, and why."""
    status = site.status(name)
    ready = next((one for one in status.get("conditions", []) if one["type"] == "Ready"), {})
    examples = [(pod["name"], pod["reason"]) for pod in status.get("pods", [])]
    return examples[0] if ready.get("status") == "False" and len(examples) == 1 else None


def test_deleting_ends_in_its_time_while_a_pod_hangs(site: ServingSite, hung: EnginePod) -> None:
    site.publish("acme/hangs-leaving", make_adapter())
    site.apply(adapter("leaving", repo="acme/hangs-leaving"))
    well = next(pod for pod in site.pods.pods if pod is not hung)
    eventually(lambda: "leaving" in _adapters(well), "the other pod to load it")

    site.kubectl("delete", "loraadapter", "leaving", "--timeout=120s")

    assert "leaving" not in _adapters(well)
    assert hung.name in site.told("leaving", "CleanupTimedOut")["note"]


def test_an_engine_that_hangs_holds_up_its_pod_alone(site: ServingSite) -> None:
    hung, well = site.pods.wait_ready(2)
    site.pods.hang_engine(hung)
    try:
        site.publish("acme/hangs-slowly", make_adapter())
        site.apply(adapter("slowly", repo="acme/hangs-slowly"))
        eventually(lambda: "slowly" in _adapters(well), "the other pod to load it")
        site.kubectl("delete", "loraadapter", "slowly", "--timeout=120s")
        assert "slowly" not in _adapters(well)
    finally:
        site.pods.heal_engine(hung)


def test_a_pod_that_comes_back_gets_what_it_missed_and_forgets_what_went(site: ServingSite) -> None:
    pod, well = site.pods.wait_ready(2)
    for name in ("early", "late"):
        site.publish(f"acme/hangs-{name}", make_adapter(seed=len(name)))
    site.apply(adapter("early", repo="acme/hangs-early"))
    site.ready("early")
    site.pods.cut_off(pod)
    site.kubectl("delete", "loraadapter", "early", "--timeout=120s")
    site.apply(adapter("late", repo="acme/hangs-late"))
    eventually(lambda: "late" in _adapters(well), "the other pod to load it")

    site.pods.restart_agent(pod)

    site.ready("late")
    eventually(lambda: "early" not in _adapters(pod), "the pod to forget what went")


def _adapters(pod: EnginePod) -> set[str]:
    """Return the names of the LoRAAdapters whose versions a pod's engine holds."""
    return {name.split(".")[1] for name in pod.engine.adapters}
