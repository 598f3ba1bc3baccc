"""The two digests: sha256 of a file of the base, which says what it was; and one of what was computed in a shard.

The second is for the journal alone: it finds what a disk has lost or changed, not what a person has forged, and so may
be fast. It is put together from those of the tasks, in their order, for threads do them in any.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from typing import Final

from xxhash import xxh3_128

from lora_merger.plan import ShardPlan, tasks
from lora_merger.refusal import ExitCode, Refusal
from lora_merger.stopping import Stop
from lora_merger.transfer import read_exactly

_CHUNK: Final = 512 * 1024


def source_digest(source: int, shard: ShardPlan, stop: Stop) -> str:
    """Return the sha256 of the base's shard."""
    digest, size = file_digest(source, stop)
    if size != shard.source_size:
        raise Refusal(ExitCode.INPUT_OUTPUT, f"{shard.name} of the base changed its length while it was read")
    return digest


def file_digest(descriptor: int, stop: Stop) -> tuple[str, int]:
    """Return the sha256 of an open file, and how many bytes it has."""
    hasher, buffer, position = hashlib.sha256(), memoryview(bytearray(_CHUNK)), 0
    while count := os.preadv(descriptor, [buffer], position):
        stop.check()
        hasher.update(buffer[:count])
        position += count
    return hasher.hexdigest(), position


def changes_digest(target: int, shard: ShardPlan, stop: Stop) -> str:
    """Return the digest of what lies where a shard of the output was computed."""
    return put_together(_task_digests(target, shard, stop))


def put_together(parts: Iterable[bytes]) -> str:
    """Return one digest for those of all tasks."""
    return xxh3_128(b"".join(parts)).hexdigest()


def _task_digests(target: int, shard: ShardPlan, stop: Stop) -> Iterable[bytes]:
    buffer = memoryview(bytearray(_CHUNK))
    for span in shard.spans:
        for run in () if span.is_copy else tasks(span):
            start, left = span.target_of(run)
            hasher = xxh3_128()
            while left:
                stop.check()
                part = buffer[: min(left, _CHUNK)]
                read_exactly(target, part, start)
                hasher.update(part)
                start, left = start + len(part), left - len(part)
            yield hasher.digest()
