"""One pass over a weights file: its sha256 and the largest magnitude in each tensor, from the same read.

A magnitude is found in the bits: without the sign, IEEE numbers sort as unsigned integers, and infinity and NaN come
after all others. One `max` a chunk so answers both "is all of it finite?" and "how large does it get?".
"""

import hashlib
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import BinaryIO

import numpy as np

from .floats import FORMATS, WHOLE_NUMBERS, Format
from .header import Header

# Whole elements of every dtype, and small enough to stay in the processor's cache between hash and check.
_CHUNK = 512 * 1024


@dataclass(frozen=True, slots=True)
class Scan:
    """What the pass found. *read* is how many bytes there were; fewer than expected if the file shrank meanwhile."""

    sha256: str
    read: int
    magnitudes: dict[str, float]


def scan(file: BinaryIO, header: Header | None, *, size: int, progress: Callable[[int], None] | None = None) -> Scan:
    """Read *file* from its start to at most one byte beyond *size*; without a *header* only hash it.

    *progress* hears how many bytes each tensor had, once they are read.
    """
    hasher = hashlib.sha256()
    buffer = memoryview(bytearray(_CHUNK))
    magnitudes: dict[str, float] = {}
    position = 0
    if header is not None:
        position += _hash(file, hasher, buffer, count=header.data_start)
        for name, tensor in header.tensors.items():
            kind = FORMATS.get(tensor.dtype) or WHOLE_NUMBERS.get(tensor.dtype)
            largest = 0
            wanted = tensor.end - tensor.begin
            while wanted > 0:
                chunk = _fill(file, buffer[: min(wanted, _CHUNK)])
                if not chunk:
                    break
                hasher.update(chunk)
                position += len(chunk)
                wanted -= len(chunk)
                largest = max(largest, _largest(chunk, kind)) if kind else 0
            magnitudes[name] = _value(largest, kind) if kind else 0.0
            if progress is not None:
                progress(tensor.end - tensor.begin)
    position += _hash(file, hasher, buffer, count=size + 1 - position)
    return Scan(hasher.hexdigest(), position, magnitudes)


def _hash(file: BinaryIO, hasher: "hashlib._Hash", buffer: memoryview, *, count: int) -> int:
    done = 0
    while done < count:
        chunk = _fill(file, buffer[: min(count - done, len(buffer))])
        if not chunk:
            break
        hasher.update(chunk)
        done += len(chunk)
    return done


def _fill(file: BinaryIO, target: memoryview) -> memoryview:
    """Read until *target* is full or the file ends, so that a chunk holds whole elements."""
    filled = 0
    while filled < len(target):
        count = file.readinto(target[filled:])  # type: ignore[attr-defined]
        if not count:
            break
        filled += count
    return target[:filled]


def _largest(chunk: memoryview, kind: Format | str) -> int:
    dtype = np.dtype(kind if isinstance(kind, str) else kind.unsigned)
    numbers = np.frombuffer(chunk, dtype=dtype, count=len(chunk) // dtype.itemsize)
    if numbers.size == 0:
        return 0
    if isinstance(kind, str):
        return max(abs(int(numbers.min())), abs(int(numbers.max())))
    return int(np.bitwise_and(numbers, dtype.type(kind.magnitude)).max())


def _value(bits: int, kind: Format | str) -> float:
    """Turn the magnitude's bits into the number."""
    if isinstance(kind, str):
        return float(bits)
    if bits >= kind.not_finite:
        return math.inf
    match kind:
        case Format(unsigned="<u8"):
            return float(np.uint64(bits).view(np.float64))
        case Format(unsigned="<u4"):
            return float(np.uint32(bits).view(np.float32))
        case Format(not_finite=0x7F80):
            return float(np.uint32(bits << 16).view(np.float32))
        case Format(not_finite=0x7C00):
            return float(np.uint16(bits).view(np.float16))
        case Format(not_finite=0x7C):  # float8 e5m2 is the upper half of a float16
            return float(np.uint16(bits << 8).view(np.float16))
        case _:
            exponent, mantissa = bits >> 3, bits & 0b111
            return math.ldexp(mantissa / 8 + (exponent > 0), max(exponent, 1) - 7)
