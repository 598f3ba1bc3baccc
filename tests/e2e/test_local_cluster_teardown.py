"""The local cluster goes as it came: whole, whatever became of its starter, and without touching its neighbour."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from localcluster import addresses, processes, templating
from localcluster.cluster import Cluster
from localcluster.node import NodeError
from support.traces import machine_settings, traces

MUST_BE_SEEN = {"processes", "containers", "commands", "links", "routes", "cgroups"}


def test_two_run_side_by_side_and_each_goes_without_a_trace(tmp_path: Path) -> None:
    settings = machine_settings()
    first, second = (Cluster.up(tmp_path / name, nodes=1) for name in ("a", "b"))
    ranges = {name: one.plane.addresses.network for name, one in (("a", first), ("b", second))}
    for name, network_range in ranges.items():
        seen = traces(tmp_path / name, network_range)
        assert {kind for kind, found in seen.items() if found} >= MUST_BE_SEEN
    first.plane.run_kubectl("create", "namespace", "only-in-the-first")
    assert "only-in-the-first" not in second.plane.run_kubectl("get", "namespaces")

    Cluster.down(tmp_path / "a")
    assert not any(traces(tmp_path / "a", ranges["a"]).values())
    assert second.is_healthy()
    Cluster.down(tmp_path / "b")
    assert not any(traces(tmp_path / "b", ranges["b"]).values())
    assert machine_settings() == settings


def test_it_goes_without_a_trace_after_its_starter_was_killed_half_way(tmp_path: Path) -> None:
    state_dir = tmp_path / "half"
    command = [sys.executable, "-m", "localcluster", "up", "--state-dir", str(state_dir), "--nodes", "1"]
    cluster = addresses.cluster_id(state_dir)
    with subprocess.Popen(command, stderr=subprocess.DEVNULL, start_new_session=True) as starter:
        kubelet_log = state_dir / "nodes/node-1/logs/kubelet.log"
        processes.wait_for("the node's kubelet", kubelet_log.exists, seconds=300)
        os.kill(starter.pid, signal.SIGKILL)
    numbers = addresses.load(state_dir)
    assert numbers is not None
    assert {found.part for found in processes.find(cluster)} >= {"etcd", "node-1"}

    Cluster.down(state_dir)
    assert not any(traces(state_dir, numbers.network).values())


def test_a_cluster_with_a_dead_node_is_not_called_healthy_and_is_started_anew(tmp_path: Path) -> None:
    cluster = Cluster.up(tmp_path / "c", nodes=1)
    numbers = cluster.plane.addresses
    try:
        cluster.nodes[0].kill()
        assert not cluster.is_healthy()
        assert Cluster.up(tmp_path / "c", nodes=1).is_healthy()
    finally:
        Cluster.down(tmp_path / "c")
    assert not any(traces(tmp_path / "c", numbers.network).values())


def test_a_node_that_dies_at_its_start_is_told_with_its_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = templating.render

    script = "until ip link show eth0; do sleep 0.05; done; echo no luck today; exit 1"

    def broken(name: str, /, **values: object) -> str:
        return script if name == "node-init.sh" else whole(name, **values)

    monkeypatch.setattr(templating, "render", broken)
    try:
        with pytest.raises(NodeError, match=r"(?s)node-1 is not running.*no luck today"):
            Cluster.up(tmp_path / "d", nodes=1)
    finally:
        Cluster.down(tmp_path / "d")
