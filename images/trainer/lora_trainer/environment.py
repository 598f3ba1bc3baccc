"""What must be settled in the process before torch and the Hub's libraries are imported: threads and noise.

What the operator or a person has set stays as it is. HF_ENDPOINT, HF_HUB_DISABLE_XET (needed where the endpoint speaks
no Xet) and proxies are read by the libraries themselves, CA bundles by `lora_operator.trust`.
"""

from __future__ import annotations

import logging
import os
import sys
import warnings
from collections.abc import MutableMapping
from pathlib import Path
from typing import Final

from lora_trainer import log

_SET_RIGHT: Final = (
    "fan_in_fan_out is set to",  # on GPT-2, by peft itself
    "PiSSA changes the base weights",  # what is saved is converted
    "OLoRA changes the base weights",
    "Could not find a config file in",  # under the base's own name; no adapter here changes a vocabulary
)
"""How warnings of peft begin that are of what is set right, by it or by this program."""
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
    # Each process is told in C++ that trl's choice of find_unused_parameters is slower than another.
    environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    # On a CPU it warns, whenever it is imported, that a kernel which nobody asked for is not there.
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    if not terminal:
        environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
        environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")
        environ.setdefault("TQDM_DISABLE", "1")


def tell_warnings() -> None:
    """Give a line to each warning that is for the person who trains; those for who writes programs are left out."""
    if sys.warnoptions:  # somebody said what is to become of them
        return
    warnings.showwarning = _told
    for kind in (DeprecationWarning, FutureWarning, PendingDeprecationWarning):
        warnings.simplefilter("ignore", kind)
    for words in _SET_RIGHT:
        warnings.filterwarnings("ignore", words)


def _told(message: Warning | str, category: type[Warning], filename: str, *_: object, **__: object) -> None:  # noqa: ARG001
    package = filename.rpartition("site-packages/")[2].partition("/")[0]
    log.say(f"warning: {package}: {' '.join(str(message).split())}")


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
