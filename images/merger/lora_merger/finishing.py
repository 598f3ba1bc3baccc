"""A shard that is written: hashed, looked through for NaN and Inf, and forced to disk, before it counts as finished."""

from __future__ import annotations

import hashlib
import math
import os
from typing import Final

from lora_merger.blocks import Descriptors
from lora_merger.described import Finished
from lora_merger.plan import ShardPlan
from lora_merger.refusal import ExitCode, Refusal, not_mergeable
from lora_merger.stopping import Stop
from lora_operator.adapter import Header, HeaderError, header_range, parse_header
from lora_operator.adapter.scan import scan

_CHUNK: Final = 512 * 1024


def source_digest(source: int, shard: ShardPlan, stop: Stop) -> str:
    """Return the sha256 of the base's shard."""
    digest, size = _digest(source, stop)
    if size != shard.source_size:
        raise Refusal(ExitCode.INPUT_OUTPUT, f"{shard.name} of the base changed its length while it was read")
    return digest


def file_digest(path: str | os.PathLike[str], stop: Stop) -> str:
    """Return the sha256 of a file."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return _digest(descriptor, stop)[0]
    finally:
        os.close(descriptor)


def finish(shard: ShardPlan, files: Descriptors, source_sha256: str, stop: Stop) -> Finished:
    """Hash a shard, refuse NaN and Inf anywhere in it, and force it to disk."""
    stop.check()
    with os.fdopen(os.dup(files.target), "rb", buffering=0) as file:
        header = _header(files.target, shard)
        file.seek(0)
        found = scan(file, header, size=shard.target_size)
    bad = [name for name, magnitude in found.magnitudes.items() if math.isinf(magnitude)]
    if bad:
        raise not_mergeable(f"{bad[0]}: NaN or Inf in the base")
    if found.read != shard.target_size:
        raise Refusal(ExitCode.INPUT_OUTPUT, f"{shard.name}: {found.read} bytes lie there, not {shard.target_size}")
    os.fsync(files.target)
    return Finished(name=shard.name, size=shard.target_size, sha256=found.sha256, source_sha256=source_sha256)


def _header(target: int, shard: ShardPlan) -> Header:
    try:
        head = b""
        while wanted := header_range(head, shard.target_size):
            head += os.pread(target, wanted[1] - wanted[0], wanted[0])
        return parse_header(head, shard.target_size)
    except HeaderError as error:
        raise Refusal(ExitCode.NOT_VERIFIED, f"{shard.name} as written: {error}") from error


def _digest(descriptor: int, stop: Stop) -> tuple[str, int]:
    hasher, buffer, position = hashlib.sha256(), memoryview(bytearray(_CHUNK)), 0
    while count := os.preadv(descriptor, [buffer], position):
        stop.check()
        hasher.update(buffer[:count])
        position += count
    return hasher.hexdigest(), position
