"""What is to be written, span by span: which bytes are copied, which are merged, and where each of them goes. Pure.

Without --dtype a shard keeps its header and every offset, so that all but the merged spans is a copy by the kernel.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from lora_merger.arithmetic import WIDTHS, divided
from lora_merger.described import Shard
from lora_merger.refusal import not_mergeable
from lora_operator.adapter import Tensor

# The values of one block. A quarter of them would stay in a core's cache, but Python lets one thread at a time make its
# next call, and threads with short calls wait for each other more than they compute. Measured: decision 35.
_BLOCK: Final = 256 * 1024
# The values of one task, of the weight and of the adapter's left half: enough to load its right half seldom.
_TASK: Final = 4 * 1024 * 1024
_TASK_LEFT: Final = 1024 * 1024


class Layout(StrEnum):
    """How the base stores the weight that a pair is for."""

    LINEAR = "linear"
    """(out, in): the product as it is."""
    CONV1D = "conv1d"
    """(in, out), as GPT-2's: the product transposed."""
    EMBEDDING = "embedding"
    """(vocabulary, hidden): the product transposed, and rounded to the weight's dtype before it is added."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Half:
    """Where one matrix of the adapter lies in its file."""

    name: str
    dtype: str
    shape: tuple[int, int]
    start: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """What is added to one weight: `scaling * (b @ a)`."""

    module: str
    layout: Layout
    a: Half
    b: Half
    scaling: float

    @property
    def weight(self) -> str:
        """The name of the base's tensor."""
        return f"{self.module}.weight"


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """Bytes of a shard from *source* on that become bytes from *target* on. A copy has equal sizes and no dtype."""

    source: int
    target: int
    source_bytes: int
    target_bytes: int
    name: str = ""
    dtype: str = ""
    """Of the source; empty for a copy."""
    into: str = ""
    rows: int = 0
    columns: int = 0
    pair: Pair | None = None

    @property
    def is_copy(self) -> bool:
        """Whether the bytes stay as they are."""
        return not self.dtype

    def source_of(self, run: Sequence[Block]) -> tuple[int, int]:
        """Return where a run of blocks lies in the base, and how many bytes it has."""
        line = self.columns * WIDTHS[self.dtype]
        return self.source + run[0].first * line, sum(block.rows for block in run) * line

    def target_of(self, run: Sequence[Block]) -> tuple[int, int]:
        """Return where a run of blocks lies in the output, and how many bytes it has."""
        line = self.columns * WIDTHS[self.into]
        return self.target + run[0].first * line, sum(block.rows for block in run) * line


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardPlan:
    """One file of the output. *head* is its first bytes where they are not the source's."""

    name: str
    source_size: int
    target_size: int
    head: bytes | None
    spans: tuple[Span, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """All of it."""

    shards: tuple[ShardPlan, ...]
    pairs: tuple[Pair, ...]

    @property
    def bytes_written(self) -> int:
        """The bytes of all shards."""
        return sum(shard.target_size for shard in self.shards)

    @property
    def merges(self) -> tuple[Span, ...]:
        """The spans that the adapter changes."""
        return tuple(span for shard in self.shards for span in shard.spans if span.pair is not None)


@dataclass(frozen=True, slots=True)
class Block:
    """Rows of a span that are computed at once."""

    first: int
    rows: int


def make_plan(shards: Sequence[Shard], pairs: Sequence[Pair], *, dtype: str | None) -> Plan:
    """Say what each shard becomes; every pair is used exactly once, or this is refused."""
    by_weight = {pair.weight: pair for pair in pairs}
    planned = tuple(_shard(shard, by_weight, dtype) for shard in shards)
    used = [span.name for shard in planned for span in shard.spans if span.pair is not None]
    if sorted(used) != sorted(by_weight) or len(by_weight) != len(pairs):
        unused = sorted(by_weight.keys() - set(used)) or sorted(used)
        raise not_mergeable(f"{unused[0]}: the adapter's tensors for it would not be used exactly once")
    return Plan(shards=planned, pairs=tuple(pairs))


def tasks(span: Span) -> Iterator[tuple[Block, ...]]:
    """Divide a span into what threads take: runs of blocks, the same ones whatever the number of threads."""
    rank = span.pair.a.shape[0] if span.pair is not None else 0
    rows = max(2, _BLOCK // span.columns)
    count = max(1, min(_TASK // (rows * span.columns), _TASK_LEFT // (rows * max(1, rank))))
    blocks = [Block(*part) for part in divided(span.rows, rows)]
    for start in range(0, len(blocks), count):
        yield tuple(blocks[start : start + count])


def largest_block(plan: Plan) -> int:
    """Return how many values the largest block has: what a thread's memory is made for."""
    changed = (span for shard in plan.shards for span in shard.spans if not span.is_copy)
    return max((block.rows * span.columns for span in changed for run in tasks(span) for block in run), default=0)


def _shard(shard: Shard, pairs: Mapping[str, Pair], dtype: str | None) -> ShardPlan:
    targets = {name: _target_dtype(tensor, dtype) for name, tensor in shard.header.tensors.items()}
    kept = all(targets[name] == tensor.dtype for name, tensor in shard.header.tensors.items())
    head = None if kept else _head(shard, targets)
    source, target = (0, 0) if kept else (shard.header.data_start, len(head or b""))
    spans: list[Span] = []
    copied = 0 if not kept else shard.header.data_start
    for name, tensor in shard.header.tensors.items():
        size, into = tensor.end - tensor.begin, targets[name]
        pair = pairs.get(name)
        if pair is None and into == tensor.dtype:
            copied += size
            continue
        if copied:
            spans.append(Span(source=source, target=target, source_bytes=copied, target_bytes=copied))
        source, target, copied = source + copied, target + copied, 0
        span = _changed(name, tensor, into, pair, at=(source, target))
        spans.append(span)
        source, target = source + span.source_bytes, target + span.target_bytes
    if copied:
        spans.append(Span(source=source, target=target, source_bytes=copied, target_bytes=copied))
    return ShardPlan(
        name=shard.name, source_size=shard.size, target_size=target + copied, head=head, spans=tuple(spans)
    )


def _changed(name: str, tensor: Tensor, into: str, pair: Pair | None, *, at: tuple[int, int]) -> Span:
    rows, columns = tensor.shape if len(tensor.shape) == 2 else (1, tensor.elements)
    if pair is None and rows * columns and len(tensor.shape) != 2:
        # A cast has no rows: any division into blocks will do.
        columns = next(width for width in range(min(_BLOCK, columns), 0, -1) if columns % width == 0)
        rows = tensor.elements // columns
    return Span(
        source=at[0],
        target=at[1],
        source_bytes=tensor.end - tensor.begin,
        target_bytes=tensor.elements * WIDTHS[into],
        name=name,
        dtype=tensor.dtype,
        into=into,
        rows=rows,
        columns=columns,
        pair=pair,
    )


def _target_dtype(tensor: Tensor, dtype: str | None) -> str:
    return dtype if dtype is not None and tensor.dtype in WIDTHS and tensor.elements else tensor.dtype


def _head(shard: Shard, dtypes: Mapping[str, str]) -> bytes:
    """Write the header anew: the same names in the same order, other dtypes and offsets."""
    entries = json.loads(shard.head[8:])
    position = 0
    for name, tensor in shard.header.tensors.items():
        end = position + (
            tensor.elements * WIDTHS[dtypes[name]] if dtypes[name] != tensor.dtype else tensor.end - tensor.begin
        )
        entries[name] |= {"dtype": dtypes[name], "data_offsets": [position, end]}
        position = end
    text = json.dumps(entries, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text
