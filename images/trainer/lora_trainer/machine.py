"""What this machine has to train on: an accelerator or a CPU, its memory, and room on disk."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Final

CGROUP_LIMIT: Final = Path("/sys/fs/cgroup/memory.max")
MEMINFO: Final = Path("/proc/meminfo")


@dataclass(frozen=True, kw_only=True, slots=True)
class Machine:
    """One device."""

    name: str
    accelerator: bool
    memory: int
    """In bytes; 0 where it can't be told."""


def here() -> Machine:
    """Return the device that a training would use."""
    import torch

    if torch.cuda.is_available():
        total = torch.cuda.get_device_properties(0).total_memory
        return Machine(name=torch.cuda.get_device_name(0), accelerator=True, memory=int(total))
    return Machine(name="this CPU", accelerator=False, memory=limit(_text(MEMINFO), _text(CGROUP_LIMIT)))


def free(folder: Path) -> int:
    """Return the bytes that are free where a folder is, or will be made."""
    there = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
    return shutil.disk_usage(there).free


def limit(meminfo: str, cgroup: str) -> int:
    """Return the smaller of the machine's memory and the container's limit."""
    found = [int(line.split()[1]) * 1024 for line in meminfo.splitlines() if line.startswith("MemTotal:")]
    if cgroup.strip().isdigit():
        found.append(int(cgroup))
    return min(found, default=0)


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii")
    except OSError:
        return ""
