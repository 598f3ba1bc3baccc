"""Processes of a cluster: found as soon as they are started, and ended with whatever they started."""

import sys
from pathlib import Path

import pytest

from localcluster import processes


@pytest.fixture
def cluster(tmp_path: Path) -> str:
    """A cluster's name that nothing else on this machine carries."""
    return f"unit-{tmp_path.parent.name}-{tmp_path.name}"


def test_a_process_is_found_at_once(tmp_path: Path, cluster: str) -> None:
    """Popen returns before the kernel has laid out the environment: about one look in ten came too early."""
    program = [sys.executable, "-c", "import time; time.sleep(600)"]
    try:
        for number in range(100):
            pid = processes.start(program, cluster=cluster, part=f"part-{number}", log=tmp_path / "log")
            assert f"{processes.CLUSTER}={cluster}".encode() in Path(f"/proc/{pid}/environ").read_bytes()
    finally:
        processes.stop(cluster)


def test_a_process_that_ends_at_once_is_not_waited_for(tmp_path: Path, cluster: str) -> None:
    processes.start(["false"], cluster=cluster, part="part", log=tmp_path / "log")

    processes.wait_for("it to end", lambda: not processes.find(cluster), seconds=60)


def test_stopping_leaves_none_of_what_they_started(tmp_path: Path, cluster: str) -> None:
    command = ["sh", "-c", "sleep 600 & sleep 600 & wait"]
    processes.start(command, cluster=cluster, part="part", log=tmp_path / "log")
    processes.wait_for("its children", lambda: len(processes.find(cluster)) == 3, seconds=60)

    processes.stop(cluster)

    assert not processes.find(cluster)
