"""What must be settled in the process before torch and the Hub's libraries are imported: threads and noise.

What the operator or a person has set stays as it is. HF_ENDPOINT, HF_HUB_DISABLE_XET (needed where the endpoint speaks
no Xet) and proxies are read by the libraries themselves, CA bundles by `lora_operator.trust`.
"""

from __future__ import annotations

import logging
import os
from collections.abc import MutableMapping
from pathlib import Path
from typing import Final

CPU_LIMIT: Final = Path("/sys/fs/cgroup/cpu.max")


def settle(environ: MutableMapping[str, str], *, processors: int, cpu_max: str, terminal: bool) -> None:
    """Fill in what is not set."""
    # Without this, OpenMP starts a thread for each of the node's processors and spins on those the cgroup withholds.
    environ.setdefault("OMP_NUM_THREADS", str(threads(processors, cpu_max)))
    environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    # torch asks for the user's name, and a pod's user has none in /etc/passwd.
    environ.setdefault("USER", "lora-train")
    environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    environ.setdefault("DATASETS_VERBOSITY", "error")
    # On a CPU it warns, whenever it is imported, that a kernel which nobody asked for is not there.
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    if not terminal:
        environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
        environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")
        environ.setdefault("TQDM_DISABLE", "1")


def threads(processors: int, cpu_max: str) -> int:
    """Return how many processors this container really has. `cpu_max` is the cgroup's file: `<quota> <period>`."""
    quota, _, period = cpu_max.strip().partition(" ")
    if quota.isdigit() and period.isdigit() and int(period) > 0:
        return max(1, min(processors, int(quota) // int(period)))
    return max(1, processors)


def cpu_limit() -> str:
    """Return the cgroup's limit as the kernel words it; empty where there is none."""
    try:
        return CPU_LIMIT.read_text(encoding="ascii")
    except OSError:
        return ""


def processors() -> int:
    """Return how many processors this process may run on."""
    return len(os.sched_getaffinity(0))
