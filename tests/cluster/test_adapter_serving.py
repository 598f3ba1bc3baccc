"""An adapter from apply to delete on a real apiserver with real agents: served, replaced, healed, let go."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from hubserver import Hub
from localcluster import ControlPlane
from support.adapters import make_adapter
from support.operating import Operator, eventually
from support.serving import ServingSite, adapter


@pytest.fixture(scope="module")
def site(
    kinds: ControlPlane, operator: Operator, hub: Hub, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ServingSite]:
    """Return a namespace with two engine pods, for all tests: each keeps to adapters of its own."""
    root = tmp_path_factory.mktemp("serving")
    with ServingSite.running(kinds, "adapter-serving", hub=hub, root=root, replicas=2) as running:
        yield running


def test_an_adapter_is_served_by_every_pod_and_leaves_nothing_behind(site: ServingSite) -> None:
    commit = site.publish("acme/happy", make_adapter())
    site.apply(adapter("happy", repo="acme/happy"))

    name = site.ready("happy")

    status = site.status("happy")
    assert status["current"]["revision"] == commit
    assert status["current"]["digest"] == make_adapter().digest
    assert status["replicas"] == {"desired": 2, "loaded": 2}
    assert {pod.engine.adapters[name] for pod in site.pods.pods} == {
        f"{pod.folder.volume}/{make_adapter().digest[7:]}" for pod in site.pods.pods
    }
    site.told("happy", "Loaded")

    site.kubectl("delete", "loraadapter", "happy", "--timeout=120s")

    assert not any(name in pod.engine.adapters for pod in site.pods.pods)
    assert all((name, True) in pod.engine.unloaded for pod in site.pods.pods), "files go after the unload"
    eventually(lambda: not any(pod.published for pod in site.pods.pods), "the files to be gone")
