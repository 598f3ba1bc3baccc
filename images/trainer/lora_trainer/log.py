"""Short lines for people, on stderr: stdout's last line is the result, for programs."""

from __future__ import annotations

import sys
from datetime import UTC, datetime


def say(line: str) -> None:
    """Write one line with the time."""
    sys.stderr.write(f"{datetime.now(UTC):%H:%M:%S} {line}\n")
    sys.stderr.flush()
