"""The cgroup that holds all pods of a node, on machines with cgroup v1, v2 or both.

Made before a node's kubelet starts and removed when its last process is gone.
"""

import contextlib
from pathlib import Path

from localcluster.processes import wait_for

ROOT = Path("/sys/fs/cgroup")
V2_CONTROLLERS = ("cpu", "cpuset", "io", "memory", "pids")


def create(name: str) -> None:
    """Make the cgroup in every hierarchy, with the controllers that kubelet wants."""
    for hierarchy in hierarchies():
        group = hierarchy / name
        group.mkdir(exist_ok=True)
        for setting in ("cpuset.cpus", "cpuset.mems"):  # on v1 they start empty, and no process may enter
            if (hierarchy / setting).exists() and (hierarchy / "cgroup.clone_children").exists():
                (group / setting).write_text((hierarchy / setting).read_text())
        if is_v2():
            for parent in (hierarchy, group):
                offered = (parent / "cgroup.controllers").read_text().split()
                wanted = " ".join(f"+{controller}" for controller in V2_CONTROLLERS if controller in offered)
                (parent / "cgroup.subtree_control").write_text(wanted)


def remove(name: str) -> None:
    """Remove the cgroup and everything below it, as soon as the kernel has let go of its processes."""
    wait_for(f"the cgroups of {name} to empty", lambda: _removed(name), seconds=60)


def existing(prefix: str) -> set[str]:
    """Return the names of our cgroups that start with a prefix."""
    return {group.name for hierarchy in hierarchies() for group in hierarchy.glob(f"{prefix}*") if group.is_dir()}


def hierarchies() -> list[Path]:
    """Return the root of each cgroup hierarchy; v2 has one."""
    if is_v2():
        return [ROOT]
    return sorted({folder.resolve() for folder in ROOT.iterdir() if (folder / "cgroup.procs").exists()})


def is_v2() -> bool:
    """Tell whether this machine has cgroup v2 alone."""
    return (ROOT / "cgroup.controllers").exists()


def _removed(name: str) -> bool:
    groups = [hierarchy / name for hierarchy in hierarchies() if (hierarchy / name).exists()]
    for group in groups:
        below = sorted((path for path in group.rglob("*") if path.is_dir()), key=lambda path: -len(path.parts))
        for folder in (*below, group):
            with contextlib.suppress(OSError):  # busy for a moment longer, or gone
                folder.rmdir()
    return not any(group.exists() for group in groups)
