"""A second opinion on what was written: rows computed again in float64 from the files alone, and copies compared.

It shares no arithmetic with `arithmetic.py` and takes the places of tensors from the output's own header. A value may
be off by half an ulp of its dtype, for the rounding, and by what float32 sums of that many products can be off.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from lora_merger.checkpoint import read_shard
from lora_merger.described import Shard
from lora_merger.files import LocalFiles
from lora_merger.plan import Half, Layout, Pair, Plan, ShardPlan
from lora_merger.refusal import ExitCode, Refusal
from lora_merger.stopping import Stop
from lora_merger.transfer import Range, is_same
from lora_operator.adapter import Tensor

Doubles = NDArray[np.float64]
# Rows looked at in each merged tensor where --verify does not ask for all.
_SAMPLE: Final = 2
_VALUES: Final = 128 * 1024
_FORMATS: Final = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2"}
# Bits of the significand, with the implicit one; and the exponent of the smallest ulp.
_PRECISION: Final = {"F32": (24, -149), "F16": (11, -24), "BF16": (8, -133)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Checked:
    """How much was looked at."""

    tensors: int
    values: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Verifier:
    """Where everything lies, and how much of it is compared."""

    plan: Plan
    base: Path
    adapter: int
    model: Path
    everything: bool
    stop: Stop
    advance: Callable[[int], None]

    def verify(self) -> Checked:
        """Compare; raises where a value is not what it should be."""
        tensors = values = 0
        pairs = {pair.weight: pair for pair in self.plan.pairs}
        for shard in self.plan.shards:
            before = read_shard(LocalFiles(self.base), shard.name)
            after = read_shard(LocalFiles(self.model), shard.name)
            _check_layout(shard, before, after)
            with (
                (self.base / shard.name).open("rb") as source,
                (self.model / shard.name).open("rb") as target,
            ):
                look = _Look(source.fileno(), target.fileno(), self.adapter)
                for name, tensor in before.header.tensors.items():
                    if name not in pairs and not self.everything:
                        continue
                    twin = after.header.tensors[name]
                    spots = (before.header.data_start + tensor.begin, after.header.data_start + twin.begin)
                    values += self._tensor(name, (tensor, twin), pairs.get(name), look, spots)
                    tensors += 1
        return Checked(tensors=tensors, values=values)

    def _tensor(
        self, name: str, tensors: tuple[Tensor, Tensor], pair: Pair | None, look: _Look, spots: tuple[int, int]
    ) -> int:
        """Compare one tensor; return how many values were looked at."""
        before, after = tensors
        if pair is None and before.dtype == after.dtype:
            wanted_bytes = Range(start=spots[0], into=spots[1], count=before.end - before.begin)
            if not is_same(look.source, look.target, wanted_bytes, advance=self._advance):
                raise _wrong(f"{name} should be the base's own bytes, and is not")
            return before.elements
        product = look.product(pair) if pair is not None else None
        columns = before.shape[1] if pair is not None else 1
        runs = self._rows(name, before.shape[0], columns) if pair is not None else _runs(before.elements)
        seen = 0
        for first, count in runs:
            start, size = first * columns, count * columns
            wanted = look.values(look.source, before.dtype, spots[0], start, size)
            slack = np.zeros(1)
            if product is not None:
                delta, slack = product.rows(first, count)
                wanted = wanted + delta
                slack = slack + 2.0**-24 * np.abs(wanted)
                if product.rounded_first and before.dtype == after.dtype:
                    slack = slack + _ulp(delta, after.dtype) / 2
            found = look.values(look.target, after.dtype, spots[1], start, size)
            _compare(name, found, wanted, slack, after.dtype)
            seen += size
            self._advance(size * np.dtype(_FORMATS[after.dtype]).itemsize)
        return seen

    def _advance(self, count: int) -> None:
        self.stop.check()
        self.advance(count)

    def _rows(self, name: str, rows: int, columns: int) -> Iterator[tuple[int, int]]:
        if self.everything:
            step = max(1, _VALUES // columns)
            yield from ((first, min(step, rows - first)) for first in range(0, rows, step))
            return
        seed = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "little")
        yield from (
            (int(row), 1) for row in np.random.default_rng(seed).choice(rows, min(_SAMPLE, rows), replace=False)
        )


@dataclass(frozen=True, slots=True)
class _Look:
    """Reads values from the open files."""

    source: int
    target: int
    adapter: int

    def values(self, descriptor: int, dtype: str, spot: int, first: int, count: int) -> Doubles:
        kind = np.dtype(_FORMATS[dtype])
        raw = os.pread(descriptor, count * kind.itemsize, spot + first * kind.itemsize)
        numbers = np.frombuffer(raw, kind)
        if dtype == "BF16":
            return (numbers.astype(np.uint32) * np.uint32(65536)).view(np.float32).astype(np.float64)
        return numbers.astype(np.float64)

    def product(self, pair: Pair) -> _Product:
        a, b = self._half(pair.a), self._half(pair.b)
        left, right = (b, a) if pair.layout is Layout.LINEAR else (a.T, b.T)
        return _Product(left, right, pair.scaling, rounded_first=pair.layout is Layout.EMBEDDING)

    def _half(self, half: Half) -> Doubles:
        count = half.shape[0] * half.shape[1]
        return self.values(self.adapter, half.dtype, half.start, 0, count).reshape(half.shape)


@dataclass(frozen=True, slots=True)
class _Product:
    """The adapter's product for one weight."""

    left: Doubles
    right: Doubles
    scaling: float
    rounded_first: bool

    def rows(self, first: int, count: int) -> tuple[Doubles, Doubles]:
        """Return what is added to rows, and by how much float32 may miss it."""
        left = self.left[first : first + count]
        delta = (left @ self.right).reshape(-1) * self.scaling
        size = (np.abs(left) @ np.abs(self.right)).reshape(-1) * abs(self.scaling)
        # Rank products and their sums, and the scaling, itself rounded: each may be off by 2^-24 of its size.
        return delta, (len(self.right) + 3) * 2.0**-24 * size


def _compare(name: str, found: Doubles, wanted: Doubles, slack: Doubles, dtype: str) -> None:
    off = np.abs(found - wanted)
    # `not <=`, for NaN compares as False with everything.
    bad = ~(off <= slack + _ulp(np.maximum(np.abs(found), np.abs(wanted)), dtype) / 2)
    if bad.any():
        index = int(np.argmax(bad))
        raise _wrong(
            f"{name} holds {found[index]!r} where {wanted[index]!r} was expected ({int(bad.sum())} such values)"
        )


def _ulp(values: Doubles, dtype: str) -> Doubles:
    bits, least = _PRECISION[dtype]
    exponents = np.frexp(values)[1]
    ulp: Doubles = np.ldexp(1.0, np.maximum(exponents - bits, least))
    return ulp


def _runs(count: int) -> Iterator[tuple[int, int]]:
    yield from ((first, min(_VALUES, count - first)) for first in range(0, count, _VALUES))


def _check_layout(shard: ShardPlan, before: Shard, after: Shard) -> None:
    if after.size != shard.target_size or list(before.header.tensors) != list(after.header.tensors):
        raise _wrong(f"{shard.name} has another size or other tensors than it should")
    for name, tensor in before.header.tensors.items():
        if after.header.tensors[name].shape != tensor.shape:
            raise _wrong(f"{name} has another shape than the base's")


def _wrong(message: str) -> Refusal:
    return Refusal(
        ExitCode.NOT_VERIFIED,
        f"{message}. Nothing was published; look for failing memory or disk, or a file that somebody changes",
    )
