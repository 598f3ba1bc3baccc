"""Takes a cluster down whole: processes, namespaces with their mounts, links, routes, cgroups, state.

Works from the state folder's path alone, because every name and every process's mark follow from it: also after a
kill -9 of whatever started the cluster, after a half-finished start, and with the folder deleted.
"""

import shutil
from pathlib import Path

from localcluster import addresses, cgroups, controlplane, network, node, processes


def down(state_dir: Path) -> None:
    """Leave nothing of a cluster behind but its logs."""
    cluster = addresses.cluster_id(state_dir)
    numbers = addresses.load(state_dir) or (network.addresses_of_link(cluster) if _has_ip() else None)
    for part in sorted({found.part for found in processes.find(cluster) if found.part.startswith("node-")}):
        node.kill(cluster, part)
    if _has_ip():
        network.remove(cluster, numbers)
    processes.stop(cluster)
    for group in cgroups.existing(node.cgroup_prefix(cluster)):
        cgroups.remove(group)
    for folder in sorted((state_dir / "nodes").glob("*")):
        node.remove_state(folder)
    (state_dir / "cluster.json").unlink(missing_ok=True)
    controlplane.stop(state_dir)
    controlplane.sweep()


def _has_ip() -> bool:
    return shutil.which("ip") is not None
