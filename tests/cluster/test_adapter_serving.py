"""An adapter from apply to delete on a real apiserver with real agents: served, replaced, healed, let go."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from pathlib import Path

import pytest

from hubserver import Hub
from localcluster import ControlPlane, audit
from support import fake_engine
from support.adapters import AdapterFiles, make_adapter
from support.engine_pods import EnginePod
from support.operating import Operator, eventually
from support.serving import ENGINE_NAME, ServingSite, adapter
from support.site import passes

LOAD, UNLOAD = "/v1/load_lora_adapter", "/v1/unload_lora_adapter"


@pytest.fixture(scope="module")
def site(
    kinds: ControlPlane, operator: Operator, hub: Hub, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ServingSite]:
    """Return a namespace with two engine pods, for all tests: each keeps to adapters of its own."""
    root = tmp_path_factory.mktemp("serving")
    with ServingSite.running(kinds, "adapter-serving", hub=hub, root=root, replicas=2) as running:
        yield running


def served(site: ServingSite, name: str, files: AdapterFiles) -> str:
    """Publish and apply an adapter; return its engine name once it is Ready."""
    site.publish(f"acme/{name}", files)
    site.apply(adapter(name, repo=f"acme/{name}"))
    return site.ready(name)


def ask_anew(site: ServingSite, name: str, files: AdapterFiles, mark: str) -> None:
    """Publish other files, and ask for the newest commit."""
    site.publish(f"acme/{name}", files)
    site.kubectl("annotate", "--overwrite", "loraadapter", name, f"lora-operator.io/requested-at={mark}")


def nudge(site: ServingSite, operator: Operator, name: str, mark: str) -> None:
    """Wake the adapter's pass by a write that asks for nothing, and wait until it has run."""
    before = passes(operator, "LoRAAdapter")
    site.kubectl("annotate", "--overwrite", "loraadapter", name, f"example.org/mark={mark}")
    eventually(lambda: passes(operator, "LoRAAdapter") > before, "a pass")


def everywhere(site: ServingSite, name: str) -> bool:
    return all(name in pod.engine.adapters for pod in site.pods.pods)


def order(pod: EnginePod, *names: str) -> list[tuple[str, str]]:
    """Return in which order a pod's engine was told to load and unload these."""
    calls = [(path, body.get("lora_name", "")) for _, path, body in pod.engine.requests if path in {LOAD, UNLOAD}]
    return [(path, name) for path, name in calls if name in names]


def test_an_adapter_is_served_by_every_pod_and_leaves_nothing_behind(site: ServingSite) -> None:
    files = make_adapter()
    commit = site.publish("acme/happy", files)
    site.apply(adapter("happy", repo="acme/happy"))

    name = site.ready("happy")

    status = site.status("happy")
    assert (status["current"]["revision"], status["current"]["digest"]) == (commit, files.digest)
    assert status["replicas"] == {"desired": 2, "loaded": 2}
    for pod in site.pods.pods:
        assert pod.engine.adapters[name] == f"{pod.folder.volume}/{files.digest[7:]}"
    site.told("happy", "Loaded")
    engine = site.get("loraengine", ENGINE_NAME)
    assert engine is not None
    assert engine["status"]["engine"] == {"version": fake_engine.VERSION, "device": "cuda"}
    assert (engine["status"]["flags"]["dtype"], engine["status"]["flags"]["maxLoraRank"]) == ("auto", 16)

    site.kubectl("delete", "loraadapter", "happy", "--timeout=120s")

    assert not any(name in pod.engine.adapters for pod in site.pods.pods)
    assert all((name, True) in pod.engine.unloaded for pod in site.pods.pods), "files go after the unload"
    eventually(lambda: not any(files.digest[7:] in pod.published for pod in site.pods.pods), "the files to be gone")


def test_a_new_revision_is_loaded_beside_the_old_which_goes_then(site: ServingSite, operator: Operator) -> None:
    old = served(site, "moving", make_adapter(seed=1))
    site.publish("acme/moving", make_adapter(seed=2))
    nudge(site, operator, "moving", "no-request")
    assert site.engine_name("moving") == old, "a pin moves only when asked"

    ask_anew(site, "moving", make_adapter(seed=3), "now")

    eventually(lambda: site.engine_name("moving") not in {old, ""}, "the new version to serve")
    new = site.ready("moving")
    eventually(lambda: not any(old in pod.engine.adapters for pod in site.pods.pods), "the old version to be gone")
    assert everywhere(site, new)
    for pod in site.pods.pods:
        assert order(pod, old, new) == [(LOAD, old), (LOAD, new), (UNLOAD, old)]
    assert "next" not in site.status("moving")


@pytest.mark.parametrize(
    ("name", "bad", "reason"),
    [
        pytest.param("worse-rank", make_adapter(rank=64), "RankTooHigh", id="refused by the operator"),
        pytest.param("worse-nan", make_adapter(seed=5).spoilt(nan=True), "NotFinite", id="refused by the agents"),
    ],
)
def test_a_bad_new_revision_leaves_the_old_one_serving_until_a_good_one_comes(
    site: ServingSite, name: str, bad: AdapterFiles, reason: str
) -> None:
    old = served(site, name, make_adapter(seed=4))

    ask_anew(site, name, bad, "bad")
    site.until("loraadapter", name, "Ready", status="False", reason=reason)

    assert site.engine_name(name) == old
    assert everywhere(site, old)
    assert not any((UNLOAD, old) in order(pod, old) for pod in site.pods.pods)

    ask_anew(site, name, make_adapter(seed=6), "good")
    eventually(lambda: site.engine_name(name) not in {old, ""}, "the good version to serve")
    new = site.ready(name)
    eventually(lambda: not any(old in pod.engine.adapters for pod in site.pods.pods), "the old version to be gone")
    assert everywhere(site, new)


def test_a_suspended_adapter_is_left_as_it_is_and_can_still_be_deleted(site: ServingSite, operator: Operator) -> None:
    old = served(site, "paused", make_adapter(seed=9))
    site.kubectl("annotate", "loraadapter", "paused", "lora-operator.io/suspend=true")
    since = dt.datetime.now(dt.UTC)

    ask_anew(site, "paused", make_adapter(seed=10), "while-suspended")
    nudge(site, operator, "paused", "suspended")

    written = audit.writes(site.plane.audit_log, user=operator.user, since=since)
    assert [write for write in written if write.name == "paused"] == []
    assert everywhere(site, old)
    site.kubectl("delete", "loraadapter", "paused", "--timeout=120s")
    assert not any(old in pod.engine.adapters for pod in site.pods.pods)


def test_an_engine_that_restarts_in_its_pod_gets_its_adapters_back(site: ServingSite) -> None:
    name = served(site, "healed", make_adapter(seed=11))
    pod = site.pods.pods[0]

    site.pods.restart_engine(pod)

    eventually(lambda: name in pod.engine.adapters, "the adapter to be loaded again")
    assert site.ready("healed") == name


def test_a_pod_that_is_added_is_not_ready_before_it_has_the_adapters(site: ServingSite) -> None:
    name = served(site, "spread", make_adapter(seed=12))

    site.kubectl("scale", "deployment", "vllm-llama", "--replicas=3")
    pods = site.pods.wait_ready(3)

    assert all(name in pod.engine.adapters for pod in pods)
    site.kubectl("scale", "deployment", "vllm-llama", "--replicas=2")
    site.pods.wait_ready(2)


def test_a_pod_whose_agent_hangs_is_not_ready_and_the_others_serve_on(site: ServingSite) -> None:
    mute, well = site.pods.wait_ready(2)
    site.pods.hang_agent(mute)
    eventually(lambda: not mute.ready, "the pod to be not Ready")

    name = served(site, "despite", make_adapter(seed=13))

    assert name in well.engine.adapters
    assert name not in mute.engine.adapters
    site.pods.restart_agent(mute)
    site.pods.wait_ready(2)
    eventually(lambda: everywhere(site, name), "the pod to catch up")


def test_a_deletion_waits_for_an_engine_that_hangs_no_longer_than_its_bound(site: ServingSite) -> None:
    served(site, "stuck", make_adapter(seed=14))
    pod = site.pods.wait_ready(2)[0]
    site.pods.hang_engine(pod)

    site.kubectl("delete", "loraadapter", "stuck", "--timeout=120s")

    event = site.told("stuck", "CleanupTimedOut")
    assert event["type"] == "Warning"
    assert pod.name in event["note"]
    site.pods.heal_engine(pod)
    site.pods.wait_ready(2)


def test_an_adapter_whose_engine_is_deleted_says_so_and_can_be_deleted(
    kinds: ControlPlane, operator: Operator, hub: Hub, tmp_path: Path
) -> None:
    with ServingSite.running(kinds, "adapter-engine-gone", hub=hub, root=tmp_path) as site:
        served(site, "orphan", make_adapter(seed=15))

        site.kubectl("delete", "loraengine", "llama", "--timeout=120s")

        gone = site.until("loraadapter", "orphan", "Ready", status="False", reason="EngineGone")
        assert "LoRAEngine adapter-engine-gone/llama" in gone["message"]
        site.told("orphan", "EngineGone")
        site.kubectl("delete", "loraadapter", "orphan", "--timeout=60s")
