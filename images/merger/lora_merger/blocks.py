"""One run of blocks, in one thread: read rows of the base, add the adapter's product, round once, write them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

from xxhash import xxh3_128

from lora_merger import arithmetic
from lora_merger.arithmetic import ADAPTER_WIDTHS, WIDTHS, Floats, Workspace
from lora_merger.plan import Block, Half, Layout, Pair, Plan, Span, largest_block
from lora_merger.refusal import Refusal, not_mergeable
from lora_merger.transfer import read_exactly, write_all

# Telling takes locks, which for every block would cost as much as a tenth of the computing.
_TELL_EVERY: Final = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Bench:
    """What a thread works with, made once a thread."""

    space: Workspace
    raw: memoryview = field(repr=False)

    @classmethod
    def of(cls, plan: Plan) -> Bench:
        """Return a bench that the plan's largest block fits on."""
        elements = largest_block(plan)
        return cls(Workspace.of(elements), memoryview(bytearray(elements * 4)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Descriptors:
    """The open files: a shard of the base, the same shard of the output, the adapter's weights."""

    source: int
    target: int
    adapter: int


def change(
    span: Span, blocks: Sequence[Block], files: Descriptors, bench: Bench, *, advance: Callable[[int], None]
) -> bytes:
    """Write a run of *blocks* of a span that is merged or cast; return the digest of what was written.

    *advance* hears of the blocks now and then, and may raise to stop.
    """
    pair = span.pair
    right = _right(pair, files.adapter) if pair is not None else None
    left = _left(pair, files.adapter, blocks) if pair is not None else None
    width, into = WIDTHS[span.dtype], WIDTHS[span.into]
    written, told = xxh3_128(), 0
    for block in blocks:
        count, first = block.rows * span.columns, block.first * span.columns
        raw = bench.raw[: count * width]
        read_exactly(files.source, raw, span.source + first * width)
        delta = None
        if pair is not None and left is not None and right is not None:
            begin = block.first - blocks[0].first
            delta = arithmetic.product(left[begin : begin + block.rows], right, pair.scaling, bench.space)
            if pair.layout is Layout.EMBEDDING and span.into == span.dtype:
                delta = arithmetic.rounded(delta, span.dtype, bench.space)
        values = arithmetic.load(raw, span.dtype, bench.space)
        if delta is not None:
            values += delta.reshape(-1)
        if not arithmetic.is_storable(values, span.into):
            raise _not_finite(span, arithmetic.load(raw, span.dtype, bench.space))
        data = arithmetic.store(values, span.into, bench.space)
        written.update(data)
        write_all(files.target, data, span.target + first * into)
        told += len(data)
        if told >= _TELL_EVERY or block is blocks[-1]:
            advance(told)
            told = 0
    return written.digest()


def _right(pair: Pair, adapter: int) -> Floats:
    """Return the half that every block needs, whole."""
    if pair.layout is Layout.LINEAR:
        return _matrix(pair.a, adapter, first=0, rows=pair.a.shape[0])
    return _matrix(pair.b, adapter, first=0, rows=pair.b.shape[0]).T


def _left(pair: Pair, adapter: int, blocks: Sequence[Block]) -> Floats:
    """Return the rows of the other half that make *blocks*."""
    first, rows = blocks[0].first, sum(block.rows for block in blocks)
    if pair.layout is Layout.LINEAR:
        return _matrix(pair.b, adapter, first=first, rows=rows)
    width = ADAPTER_WIDTHS[pair.a.dtype]
    rank, columns = pair.a.shape
    raw = memoryview(bytearray(rank * rows * width))
    for row in range(rank):
        part = raw[row * rows * width : (row + 1) * rows * width]
        read_exactly(adapter, part, pair.a.start + (row * columns + first) * width)
    return arithmetic.widen(raw, pair.a.dtype).reshape(rank, rows).T


def _matrix(half: Half, adapter: int, *, first: int, rows: int) -> Floats:
    line = half.shape[1] * ADAPTER_WIDTHS[half.dtype]
    raw = memoryview(bytearray(rows * line))
    read_exactly(adapter, raw, half.start + first * line)
    return arithmetic.widen(raw, half.dtype).reshape(rows, half.shape[1])


def _not_finite(span: Span, base: Floats) -> Refusal:
    inside = arithmetic.is_storable(base, "F32")
    where = f"once it is merged and rounded to {span.into}" if inside else "in the base"
    return not_mergeable(f"{span.name}: NaN or Inf {where}: nothing good would come of it")
