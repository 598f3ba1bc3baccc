"""`prepare`: both sides resolved, read and judged, and the plan made, before a byte is written."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, Literal

from lora_merger.checkpoint import CONFIG, INDEX, read_adapter, read_checkpoint
from lora_merger.described import Checkpoint
from lora_merger.files import LocalFiles, Source
from lora_merger.pairing import pair_up
from lora_merger.plan import Plan, make_plan
from lora_merger.refusal import ExitCode, Refusal, unreadable
from lora_merger.sources import open_source
from lora_merger.stopping import Stop
from lora_merger.workplace import refuse_if_there
from lora_operator.adapter import CONFIG as ADAPTER_CONFIG
from lora_operator.adapter import WEIGHTS, Adapter, Finding, Stored, Summary, find_stored, open_directory

State = Mapping[str, tuple[int, ...]]
DTYPES: Final = {"float32": "F32", "float16": "F16", "bfloat16": "BF16"}


@dataclass(frozen=True, slots=True, kw_only=True)
class MergeRequest:
    """What to merge: directories, or `hf://<id>[@<revision>]`."""

    base: str
    adapter: str
    out: Path
    dtype: Literal["float32", "float16", "bfloat16"] | None = None
    """Of every weight of the output; None keeps each one's own."""
    threads: int | None = None
    verify: bool = False
    """Compute all of it again, rather than a sample."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """Everything that is known before a byte is written; what --dry-run shows."""

    request: MergeRequest
    base: Source
    adapter: Source
    checkpoint: Checkpoint
    state: State | None
    """Of a base that lies here: what it was when its headers were read."""
    judged: Adapter
    weights: int
    """The adapter's weights, open since before they were judged."""
    plan: Plan
    summary: Summary
    warnings: tuple[Finding, ...]

    @property
    def shards(self) -> list[str]:
        """The base's weights files."""
        return [shard.name for shard in self.checkpoint.shards]

    @property
    def beside(self) -> list[str]:
        """The base's other files that are read or carried over."""
        return [*self.checkpoint.carried, CONFIG, *([INDEX] if self.checkpoint.indexed else [])]

    @property
    def vouched(self) -> Mapping[str, str]:
        """The sha256 of those of the base's shards that lie here with the Hub's word; what is fetched now is hashed."""
        return {} if self.base.is_remote else self.base.sha256


@contextmanager
def prepare(request: MergeRequest, stop: Stop) -> Iterator[Prepared]:
    """Resolve, read and judge both sides. Writes only the download of a remote adapter, which goes at the end."""
    request = replace(request, out=request.out.absolute())
    refuse_if_there(request.out)
    with ExitStack() as stack:
        try:
            prepared = _prepare(request, stack, stop)
        except OSError as error:
            raise unreadable(error, doing="reading base and adapter") from error
        yield prepared


def _prepare(request: MergeRequest, stack: ExitStack, stop: Stop) -> Prepared:
    if request.dtype is not None and request.dtype not in DTYPES:
        raise Refusal(ExitCode.USAGE, f"dtype {request.dtype!r}: one of {', '.join(DTYPES)}")
    adapter = open_source(request.adapter)
    base = open_source(request.base)
    for source in (base, adapter):
        if isinstance(source.files, LocalFiles) and request.out.is_relative_to(source.files.folder.absolute()):
            raise Refusal(ExitCode.USAGE, f"OUT {request.out} lies in {source.name}, which is only read: another place")
    checkpoint = read_checkpoint(base.files)
    state = None
    if isinstance(base.files, LocalFiles):
        state = state_of(base.files.folder, [shard.name for shard in checkpoint.shards])
        for name in checkpoint.carried:
            # Whether it may be read; it would be found out at the very end otherwise.
            os.close(os.open(base.files.folder / name, os.O_RDONLY | os.O_CLOEXEC))
    stop.check()
    if adapter.is_remote:
        # By its header: what can't be merged is not fetched.
        pair_up(read_adapter(adapter.files, adapter.sha256), checkpoint)
    folder = _adapter_folder(adapter, stack, stop)
    weights = _open_weights(folder, stack)
    judged = open_directory(folder, level="full", expected=adapter.sha256, stored=_stored(base, checkpoint))
    pairs, summary, warnings = pair_up(judged, checkpoint, base_name=base.repo)
    plan = make_plan(checkpoint.shards, pairs, dtype=DTYPES[request.dtype] if request.dtype else None)
    return Prepared(
        request=request,
        base=base,
        adapter=adapter,
        checkpoint=checkpoint,
        state=state,
        judged=judged,
        weights=weights,
        plan=plan,
        summary=summary,
        warnings=warnings,
    )


def _stored(base: Source, checkpoint: Checkpoint) -> Mapping[str, Stored]:
    """Return where embedding and head lie, for copies of them that PEFT saved; nothing of a base that is not here."""
    if not isinstance(base.files, LocalFiles):
        return {}
    return find_stored({base.files.folder / shard.name: shard.header for shard in checkpoint.shards}, checkpoint.config)


def state_of(folder: Path, names: Sequence[str]) -> State:
    """Return what tells, later, that nobody has written to files."""
    facts = {name: (folder / name).stat() for name in names}
    return {name: (fact.st_ino, fact.st_size, fact.st_mtime_ns, fact.st_ctime_ns) for name, fact in facts.items()}


def _adapter_folder(adapter: Source, stack: ExitStack, stop: Stop) -> Path:
    if isinstance(adapter.files, LocalFiles):
        return adapter.files.folder
    from lora_merger import hub  # noqa: PLC0415

    # Files of its own: the adapter library reads no links, which the Hub's cache is made of.
    scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="lora-merge-")))
    return hub.download(adapter, (ADAPTER_CONFIG, WEIGHTS), scratch, stop)


def _open_weights(folder: Path, stack: ExitStack) -> int:
    """Open what is going to be judged and merged; -1 where it can't be, which judging it tells better."""
    try:
        weights = os.open(folder / WEIGHTS, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return -1
    stack.callback(os.close, weights)
    return weights
