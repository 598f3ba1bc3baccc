"""One run of blocks, in one thread: read rows of the base, add the adapter's product, round once, write them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from lora_merger import arithmetic
from lora_merger.arithmetic import ADAPTER_WIDTHS, WIDTHS, Floats, Workspace
from lora_merger.plan import Block, Half, Layout, Pair, Plan, Span, largest_block
from lora_merger.refusal import not_mergeable
from lora_merger.transfer import read_exactly, write_all


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
) -> None:
    """Write *blocks* of a span that is merged or cast; *advance* hears of each and may raise to stop."""
    pair = span.pair
    right = _right(pair, files.adapter) if pair is not None else None
    width, into = WIDTHS[span.dtype], WIDTHS[span.into]
    for block in blocks:
        count, first = block.rows * span.columns, block.first * span.columns
        raw = bench.raw[: count * width]
        read_exactly(files.source, raw, span.source + first * width)
        # Of a wide NaN rounding may make a number; what is narrow already shows in the result.
        if span.dtype == "F32" and not arithmetic.is_finite(raw, span.dtype):
            raise _not_finite(span, "in the base")
        delta = None
        if pair is not None and right is not None:
            delta = arithmetic.product(_left(pair, files.adapter, block), right, pair.scaling, bench.space)
            if pair.layout is Layout.EMBEDDING and span.into == span.dtype:
                delta = arithmetic.rounded(delta, span.dtype, bench.space)
        values = arithmetic.load(raw, span.dtype, bench.space)
        if delta is not None:
            values += delta.reshape(-1)
        data = arithmetic.store(values, span.into, bench.space)
        if not arithmetic.is_finite(data, span.into):
            raise _not_finite(span, f"once it is merged and rounded to {span.into}")
        write_all(files.target, data, span.target + first * into)
        advance(len(data))


def _right(pair: Pair, adapter: int) -> Floats:
    """Return the half that every block needs, whole."""
    if pair.layout is Layout.LINEAR:
        return _matrix(pair.a, adapter, first=0, rows=pair.a.shape[0])
    return _matrix(pair.b, adapter, first=0, rows=pair.b.shape[0]).T


def _left(pair: Pair, adapter: int, block: Block) -> Floats:
    """Return the rows of the other half that make *block*."""
    if pair.layout is Layout.LINEAR:
        return _matrix(pair.b, adapter, first=block.first, rows=block.rows)
    width = ADAPTER_WIDTHS[pair.a.dtype]
    rank, columns = pair.a.shape
    raw = memoryview(bytearray(rank * block.rows * width))
    for row in range(rank):
        part = raw[row * block.rows * width : (row + 1) * block.rows * width]
        read_exactly(adapter, part, pair.a.start + (row * columns + block.first) * width)
    return arithmetic.widen(raw, pair.a.dtype).reshape(rank, block.rows).T


def _matrix(half: Half, adapter: int, *, first: int, rows: int) -> Floats:
    line = half.shape[1] * ADAPTER_WIDTHS[half.dtype]
    raw = memoryview(bytearray(rows * line))
    read_exactly(adapter, raw, half.start + first * line)
    return arithmetic.widen(raw, half.dtype).reshape(rows, half.shape[1])


def _not_finite(span: Span, where: str) -> Exception:
    return not_mergeable(f"{span.name}: NaN or Inf {where}: nothing good would come of it")
