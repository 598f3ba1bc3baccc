"""What a command costs: `measure([...])` gives wall and CPU seconds and peak memory, of it and all that it starts.

It is started by a small process of its own: the kernel counts what the starter held towards the peak of the started.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """One run of a command."""

    wall: float
    cpu: float
    peak: int


def measure(command: Sequence[str | Path], *, env: Mapping[str, str] | None = None, text: str = "") -> Cost:
    """Run a command that has to succeed, and return its cost."""
    words = [sys.executable, "-S", "-E", __file__, *(str(word) for word in command)]
    environment = {**os.environ, **(env or {})}
    done = subprocess.run(words, input=text, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
    return Cost(**json.loads(done.stdout.splitlines()[-1]))


def spread(costs: Sequence[Cost], name: str) -> str:
    """Return the median, and from what to what it went."""
    values = sorted(getattr(cost, name) / (1024 * 1024 if name == "peak" else 1) for cost in costs)
    form = "{:.0f}" if name == "peak" else "{:.1f}"
    return f"{form.format(median(values))} ({form.format(values[0])} to {form.format(values[-1])})"


def main() -> None:
    """Run the command and print its cost."""
    started = time.monotonic()
    done = subprocess.run(sys.argv[1:], stdout=sys.stderr, check=False)
    wall = time.monotonic() - started
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    print(json.dumps({"wall": wall, "cpu": used.ru_utime + used.ru_stime, "peak": used.ru_maxrss * 1024}))
    sys.exit(done.returncode)


if __name__ == "__main__":
    main()
