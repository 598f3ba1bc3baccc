"""CPU seconds and memory of child processes. Whoever compares two runs them in turn: a busy moment then meets both."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass

PYTHON = sys.executable


@dataclass(frozen=True, slots=True)
class Usage:
    """What one process took."""

    cpu_seconds: float
    output: str


@dataclass(frozen=True, slots=True)
class Spread:
    """Several runs of one thing."""

    values: tuple[float, ...]

    @property
    def median(self) -> float:
        """The middle one, which a single disturbed run does not move."""
        return statistics.median(self.values)

    def __str__(self) -> str:
        return f"{self.median:.4f} ({min(self.values):.4f} to {max(self.values):.4f}, {len(self.values)} runs)"


# As a program's last line: the most memory that it had, in MiB. (ru_maxrss would also count what its parent had.)
PRINT_PEAK = """
print([int(line.split()[1]) / 1024 for line in open("/proc/self/status") if line.startswith("VmHWM")][0])
"""


def run(command: Sequence[str]) -> Usage:
    """Run a command to its end, on one processor's worth of threads."""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stdout is not None
        output = process.stdout.read()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0, command
    return Usage(usage.ru_utime + usage.ru_stime, output)


def python(program: str, *arguments: str) -> Usage:
    """Run a Python program with this environment's packages."""
    return run([PYTHON, "-c", program, *arguments])
