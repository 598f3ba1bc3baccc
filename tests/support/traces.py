"""What a local cluster leaves on a machine while it runs, as teardown must not leave it: for tests to look."""

import json
import os
import subprocess
from pathlib import Path

from localcluster import addresses, cgroups, network, processes
from localcluster.node import cgroup_prefix


def traces(state_dir: Path, network_range: str) -> dict[str, set[str]]:
    """Return the processes, mounts, links, routes and cgroups of one cluster, by kind."""
    cluster = addresses.cluster_id(state_dir)
    prefix = cgroup_prefix(cluster)
    return {
        "processes": {f"{found.pid} {found.part}" for found in processes.find(cluster)},
        "containers": {str(pid) for pid in _pids() if prefix in _read(pid, "cgroup")},
        "commands": {str(pid) for pid in _pids() if str(state_dir) in _read(pid, "cmdline") and pid != os.getpid()},
        "mounts": {line for line in Path("/proc/self/mounts").read_text().splitlines() if str(state_dir) in line},
        "links": network.links(cluster),
        "routes": _routes(network_range),
        "cgroups": cgroups.existing(prefix),
        "nft": {line for line in _nft().splitlines() if network_range.rsplit(".", 2)[0] in line},
    }


def machine_settings() -> dict[str, str]:
    """Return the settings of the whole machine that a kubelet or a kube-proxy would change."""
    names = (
        "kernel/panic",
        "kernel/panic_on_oops",
        "vm/overcommit_memory",
        "vm/panic_on_oom",
        "kernel/keys/root_maxkeys",
    )
    return {name: Path("/proc/sys", name).read_text() for name in names}


def _pids() -> list[int]:
    return [int(folder.name) for folder in Path("/proc").iterdir() if folder.name.isdigit()]


def _read(pid: int, name: str) -> str:
    try:
        return Path("/proc", str(pid), name).read_text(errors="replace")
    except OSError:  # gone meanwhile
        return ""


def _routes(network_range: str) -> set[str]:
    told = subprocess.run(["ip", "-json", "route", "show", "table", "all"], capture_output=True, check=True).stdout
    start = ".".join(network_range.split(".")[:2]) + "."
    return {route["dst"] for route in json.loads(told) if route["dst"].startswith(start)}


def _nft() -> str:
    return subprocess.run(["nft", "list", "ruleset"], capture_output=True, text=True, check=True).stdout
