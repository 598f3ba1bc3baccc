"""Is there room: asked before a byte is fetched, and again before one is written."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from lora_merger.refusal import ExitCode, Refusal


def refuse_if_too_full(wanted: Iterable[tuple[Path, int]]) -> None:
    """Refuse where a file system has less than what is wanted of it; each is asked once for all that goes there."""
    totals: dict[int, tuple[Path, int]] = {}
    for folder, count in wanted:
        there = next(path for path in (folder, *folder.parents) if path.exists())
        device = there.stat().st_dev
        first, before = totals.get(device, (there, 0))
        totals[device] = first, before + count
    for folder, count in totals.values():
        disk = os.statvfs(folder)
        free = disk.f_bavail * disk.f_frsize
        if free < count:
            raise Refusal(
                ExitCode.NO_SPACE,
                f"{folder} has {free:,} bytes free, and the merge still needs {count:,}: "
                "free some space, or choose another place",
            )
