"""`--dry-run`: which weights change, how many bytes are written, and about how long that takes on this disk."""

from __future__ import annotations

import os
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Final

from lora_merger.plan import Plan
from lora_merger.preparing import Prepared
from lora_merger.progress import duration, size
from lora_merger.refusal import no_place

_PROBE: Final = 32 * 1024 * 1024
# Bytes a second on one core of a server of 2024: computing what changes, copying the rest, hashing a base.
_COMPUTED, _COPIED, _HASHED = 700e6, 2e9, 1.8e9


def report(prepared: Prepared) -> str:
    """Return what a merge would do, for people."""
    plan, request = prepared.plan, prepared.request
    merged = sum(span.target_bytes for span in plan.merges)
    folder = request.out.parent
    disk = os.statvfs(folder)
    free = disk.f_bavail * disk.f_frsize
    kinds = ", ".join(f"{name} in {count}" for name, count in _kinds(plan).items())
    shares = f"{merged / plan.bytes_written:.0%}" if plan.bytes_written else "0%"
    lines = [
        f"base      {_source(prepared.base.name, prepared.base.revision)}: {len(plan.shards)} weights files",
        f"adapter   {_source(prepared.adapter.name, prepared.adapter.revision)}: {prepared.summary.digest}",
        f"changes   {len(plan.merges)} weights, {size(merged)} ({shares}): {kinds}",
        f"writes    {size(plan.bytes_written)} to {request.out}; {size(free)} are free there",
        f"takes     about {duration(estimate(prepared, folder))}",
        *(f"note      {warning}" for warning in prepared.warnings),
        "Nothing was written.",
    ]
    return "\n".join(lines) + "\n"


def estimate(prepared: Prepared, folder: Path) -> float:
    """Return the seconds that a merge takes: the slower of this disk, which is tried, and the processors."""
    plan = prepared.plan
    cores = min(prepared.request.threads or 4, len(os.sched_getaffinity(0)))
    computed = sum(span.target_bytes for shard in plan.shards for span in shard.spans if not span.is_copy)
    hashed = sum(shard.source_size for shard in plan.shards if shard.name not in prepared.vouched)
    work = computed / _COMPUTED + (plan.bytes_written - computed) / _COPIED + hashed / _HASHED
    return max(plan.bytes_written / _disk_speed(folder), work / cores)


def _disk_speed(folder: Path) -> float:
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            started = time.monotonic()
            part = os.urandom(1024 * 1024)
            for _ in range(_PROBE // len(part)):
                file.write(part)
            file.flush()
            os.fsync(file.fileno())
            return _PROBE / max(time.monotonic() - started, 1e-3)
    except OSError as error:
        raise no_place(error, doing="trying how fast the disk is") from error


def _kinds(plan: Plan) -> Counter[str]:
    return Counter(span.name.removesuffix(".weight").rpartition(".")[2] for span in plan.merges)


def _source(name: str, revision: str | None) -> str:
    return f"hf://{name}@{revision}" if revision else name
