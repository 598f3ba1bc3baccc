"""The numbers: PEFT's merge in float32, in its order of operations, on one block of rows at a time. Pure.

PEFT computes `(B @ A) * scaling` in float32 and adds it to the weight in place, which rounds once; for an embedding it
rounds the product to the weight's dtype first. docs/decisions/0025 says how near to PEFT's bits this comes, and why.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
# The dtypes that a touched tensor may have, as safetensors names them, and the bytes of one value.
WIDTHS: Final = {"F32": 4, "F16": 2, "BF16": 2}
# From this magnitude on, rounding to nearest gives infinity.
_OVERFLOWS: Final = {"F32": math.inf, "F16": 65520.0, "BF16": float.fromhex("0x1.FFp127")}
# What an adapter may be saved in; PEFT makes float32 of each.
ADAPTER_WIDTHS: Final = {**WIDTHS, "F64": 8}
# Up to so many products OpenBLAS multiplies matrices of a low rank without packing them first, in half the time; above
# that rank packing pays, over as many rows as there are. Measured: decision 35.
_UNPACKED: Final = 512 * 1024
_LOW_RANK: Final = 16
# torch's matrix product adds up this many products one after the other, then adds such sums.
_PANEL: Final = 192


def panel(rank: int) -> int:
    """Return how many products torch's matrix product (MKL's) adds up before it begins another sum."""
    if rank <= _PANEL:
        return rank
    return (rank + 1) // 2 if rank <= 2 * _PANEL else _PANEL


def divided(rows: int, most: int) -> Iterator[tuple[int, int]]:
    """Divide rows into parts of *most*, the last of at most one more; yield where each begins, and its rows."""
    first = 0
    while first < rows:
        # One row alone would be another kernel of the BLAS, which adds up in another order.
        count = rows - first if rows - first <= most + 1 else most
        yield first, count
        first += count


def widen(raw: bytes | bytearray | memoryview, dtype: str) -> Floats:
    """Return the values of *raw* as float32, in an array of their own."""
    if dtype == "BF16":
        wide = np.frombuffer(raw, "<u2").astype("<u4")
        wide <<= np.uint32(16)
        return wide.view(np.float32)
    return np.frombuffer(raw, {"F32": "<f4", "F16": "<f2", "F64": "<f8"}[dtype]).astype(np.float32)


@dataclass(frozen=True, slots=True)
class Workspace:
    """The arrays that one thread computes in: made once, so that memory does not depend on how much is merged."""

    weights: NDArray[np.uint32]
    delta: Floats
    spare: NDArray[np.uint32]
    half: NDArray[np.uint16]

    @classmethod
    def of(cls, elements: int) -> Workspace:
        """Return a workspace for blocks of up to *elements* values."""
        return cls(
            np.empty(elements, np.uint32),
            np.empty(elements, np.float32),
            np.empty(elements, np.uint32),
            np.empty(elements, np.uint16),
        )


def product(left: Floats, right: Floats, scaling: float, space: Workspace) -> Floats:
    """Return `(left @ right) * scaling` as PEFT computes it, in the workspace's delta."""
    rows, rank = left.shape
    columns = right.shape[1]
    delta = space.delta[: rows * columns].reshape(rows, columns)
    step = panel(rank)
    at_once = max(2, _UNPACKED // (rank * columns)) if rank <= _LOW_RANK else rows
    for first, count in divided(rows, at_once):
        np.matmul(left[first : first + count, :step], right[:step], out=delta[first : first + count])
    for start in range(step, rank, step):
        partial = space.spare.view(np.float32)[: delta.size].reshape(delta.shape)
        np.matmul(left[:, start : start + step], right[start : start + step], out=partial)
        delta += partial
    # torch makes a float32 of the number before it multiplies.
    delta *= np.float32(scaling)
    return delta


def load(raw: memoryview, dtype: str, space: Workspace) -> Floats:
    """Return the values of *raw* as float32, in the workspace's weights."""
    count = len(raw) // WIDTHS[dtype]
    weights = space.weights[:count]
    if dtype == "BF16":
        np.copyto(weights, np.frombuffer(raw, "<u2"))
        weights <<= np.uint32(16)
    elif dtype == "F16":
        np.copyto(weights.view(np.float32), np.frombuffer(raw, "<f2"))
    else:
        np.copyto(weights.view(np.float32), np.frombuffer(raw, "<f4"))
    return weights.view(np.float32)


def store(values: Floats, dtype: str, space: Workspace) -> memoryview:
    """Return the bytes of *values* rounded once, to nearest even; they lie in the workspace. Destroys *values*."""
    flat = values.reshape(-1)
    if dtype == "F32":
        return flat.data.cast("B")
    half = space.half[: flat.size]
    if dtype == "F16":
        with np.errstate(over="ignore"):
            np.copyto(half.view(np.float16), flat, casting="same_kind")
    else:
        bits = flat.view(np.uint32)
        spare = space.spare[: flat.size]
        np.right_shift(bits, 16, out=spare)
        spare &= np.uint32(1)
        bits += spare
        bits += np.uint32(0x7FFF)
        # Moved down and narrowed: half the time of gathering every other half-word.
        bits >>= np.uint32(16)
        np.copyto(half, bits, casting="unsafe")
    return half.data.cast("B")


def rounded(values: Floats, dtype: str, space: Workspace) -> Floats:
    """Round *values* to *dtype* and back, in place: what PEFT does to an embedding's product before it adds it."""
    if dtype == "F32":
        return values
    half = np.frombuffer(store(values, dtype, space), "<u2")
    bits = values.reshape(-1).view(np.uint32)
    if dtype == "F16":
        np.copyto(bits.view(np.float32), half.view(np.float16))
    else:
        np.copyto(bits, half)
        bits <<= np.uint32(16)
    return values


def is_storable(values: Floats, dtype: str) -> bool:
    """Tell whether each of *values* is a number, and stays one when it is rounded to *dtype*."""
    flat = values.reshape(-1)
    limit = _OVERFLOWS[dtype]
    with np.errstate(over="ignore", invalid="ignore"):
        # The sum of squares is the fastest look: NaN and Inf show in it, and no value is larger than its root.
        if float(np.dot(flat, flat)) < limit * limit:
            return True
        return bool(np.abs(flat).max(initial=0.0) < limit)
