"""Where a cluster cannot be, it says so before it touches anything; and a cgroup fits the machine's version."""

from pathlib import Path

import pytest
from click.testing import CliRunner

from localcluster import cgroups
from localcluster.__main__ import main
from localcluster.cluster import Cluster, NeedsRootError


def test_without_root_the_way_out_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    with pytest.raises(NeedsRootError, match="helm install"):
        Cluster.up(tmp_path / "state")
    assert not (tmp_path / "state").exists()
    told = CliRunner().invoke(main, ["up", "--state-dir", str(tmp_path / "state")])
    assert told.exit_code == 1
    assert "helm install" in told.output


def test_a_state_folder_that_nodes_would_hide_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 0)
    with pytest.raises(ValueError, match="choose another folder"):
        Cluster.up(Path("/run/somewhere"))


def test_status_of_no_cluster_is_a_failure(tmp_path: Path) -> None:
    assert CliRunner().invoke(main, ["status", "--state-dir", str(tmp_path)]).exit_code == 1


def test_on_cgroup_v2_the_controllers_are_handed_down(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cgroups, "ROOT", tmp_path)
    (tmp_path / "node").mkdir()
    for folder in (tmp_path, tmp_path / "node"):
        (folder / "cgroup.controllers").write_text("cpuset cpu io memory hugetlb pids rdma\n")
    cgroups.create("node")
    handed_down = (tmp_path / "node" / "cgroup.subtree_control").read_text()
    assert handed_down == "+cpu +cpuset +io +memory +pids"
    assert cgroups.existing("no") == {"node"}


def test_on_cgroup_v1_every_hierarchy_gets_one_with_processors_and_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cgroups, "ROOT", tmp_path)
    for name in ("memory", "cpuset"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "cgroup.procs").touch()
    for setting, value in (("cgroup.clone_children", "0\n"), ("cpuset.cpus", "0-1\n"), ("cpuset.mems", "0\n")):
        (tmp_path / "cpuset" / setting).write_text(value)
    cgroups.create("node")
    assert (tmp_path / "memory" / "node").is_dir()
    assert (tmp_path / "cpuset" / "node" / "cpuset.cpus").read_text() == "0-1\n"
    assert (tmp_path / "cpuset" / "node" / "cpuset.mems").read_text() == "0\n"
