"""`merge`: the order of the steps, from two references to a directory that is whole.

What can be refused is refused before a byte is written; what is written becomes OUT by one rename, at the very end.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, Literal

import numpy as np

from lora_merger import manifest
from lora_merger.checkpoint import CARD, CONFIG, INDEX, MANIFEST, LocalFiles, read_checkpoint
from lora_merger.described import Checkpoint, Finished
from lora_merger.manifest import Lineage, Origin
from lora_merger.pairing import pair_up
from lora_merger.plan import Plan, make_plan
from lora_merger.refusal import ExitCode, Refusal, from_os_error, not_mergeable
from lora_merger.sources import Source, is_remote, local_copy, open_source
from lora_merger.stopping import Stop
from lora_merger.verifying import Checked, Verifier
from lora_merger.workplace import Workplace, refuse_if_there, workplace
from lora_merger.writing import Writing
from lora_operator import __version__
from lora_operator.adapter import CONFIG as ADAPTER_CONFIG
from lora_operator.adapter import WEIGHTS, Adapter, Finding, Summary, open_directory

DTYPES: Final = {"float32": "F32", "float16": "F16", "bfloat16": "BF16"}
Stage = Literal["merging", "verifying"]
# Raised whenever the bytes of an output would differ: what an older version has finished is then made anew.
_FORMAT: Final = 1
_MOST_THREADS: Final = 4


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
    adapter_files: Adapter
    adapter_folder: Path
    plan: Plan
    summary: Summary
    warnings: tuple[Finding, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Merged:
    """What a merge has made."""

    out: Path
    plan: Plan
    resumed: int
    """Shards that an earlier run had finished."""
    checked: Checked
    warnings: tuple[Finding, ...]


def _silent(_stage: Stage, _done: int, _total: int) -> None:
    """Tell nobody."""


def merge(
    request: MergeRequest, *, progress: Callable[[Stage, int, int], None] = _silent, stop: Stop | None = None
) -> Merged:
    """Merge; raises Refusal. *progress* hears of bytes just written, and of how many; *stop* ends it between blocks."""
    stop = stop or Stop()
    request = replace(request, out=request.out.absolute())
    refuse_if_there(request.out)
    with ExitStack() as stack:
        prepared = stack.enter_context(prepare(request, stop))
        try:
            place = stack.enter_context(workplace(request.out))
            return _merge(prepared, place, progress, stop)
        except OSError as error:
            raise from_os_error(error, doing=f"writing {request.out}") from error


@contextmanager
def prepare(request: MergeRequest, stop: Stop) -> Iterator[Prepared]:
    """Resolve, read and judge both sides. Writes only the download of a remote adapter, which goes at the end."""
    with tempfile.TemporaryDirectory(prefix="lora-merge-") as scratch:
        try:
            prepared = _prepare(request, Path(scratch), stop)
        except OSError as error:
            raise from_os_error(error, doing="reading base and adapter") from error
        yield prepared


def _prepare(request: MergeRequest, scratch: Path, stop: Stop) -> Prepared:
    if request.dtype is not None and request.dtype not in DTYPES:
        raise Refusal(ExitCode.USAGE, f"dtype {request.dtype!r}: one of {', '.join(DTYPES)}")
    adapter = open_source(request.adapter)
    base = open_source(request.base)
    checkpoint = read_checkpoint(base.files)
    stop.check()
    folder = local_copy(adapter, (ADAPTER_CONFIG, WEIGHTS), scratch, own_files=True)
    files = open_directory(folder, level="full", expected=adapter.sha256)
    pairs, summary, warnings = pair_up(files, checkpoint)
    plan = make_plan(checkpoint.shards, pairs, dtype=DTYPES[request.dtype] if request.dtype else None)
    return Prepared(
        request=request,
        base=base,
        adapter=adapter,
        checkpoint=checkpoint,
        adapter_files=files,
        adapter_folder=folder,
        plan=plan,
        summary=summary,
        warnings=warnings,
    )


def _merge(prepared: Prepared, place: Workplace, progress: Callable[[Stage, int, int], None], stop: Stop) -> Merged:
    plan = prepared.plan
    folder = _base_folder(prepared)
    before = _fingerprint(prepared, folder)
    kept = place.take_up(before, plan, stop)
    missing = [shard for shard in plan.shards if shard.name not in kept]
    place.refuse_if_too_full(sum(shard.target_size for shard in missing))
    finished = dict(kept)

    def note(shard: Finished) -> None:
        expected = prepared.base.sha256.get(shard.name)
        if expected is not None and expected != shard.source_sha256:
            raise not_mergeable(f"{shard.name} of the base is not what the Hub says it is: fetch it again")
        place.note(shard)
        finished[shard.name] = shard

    total = sum(shard.target_size for shard in missing)
    Writing(
        plan=plan,
        base=folder,
        adapter=prepared.adapter_folder,
        target=place.model,
        threads=prepared.request.threads or min(_MOST_THREADS, len(os.sched_getaffinity(0))),
        stop=stop,
        advance=lambda count: progress("merging", count, total),
        finished=note,
    ).write(missing)
    checked = Verifier(
        plan=plan,
        base=folder,
        adapter=prepared.adapter_folder,
        model=place.model,
        everything=prepared.request.verify,
        stop=stop,
        advance=lambda count: progress("verifying", count, plan.bytes_written),
    ).verify()
    if _fingerprint(prepared, folder) != before:
        raise Refusal(
            ExitCode.INPUT_OUTPUT, "the base changed while it was read: run it again when nobody writes to it"
        )
    _put_the_rest(prepared, place, folder, [finished[shard.name] for shard in plan.shards])
    stop.check()
    place.publish()
    return Merged(out=prepared.request.out, plan=plan, resumed=len(kept), checked=checked, warnings=prepared.warnings)


def _base_folder(prepared: Prepared) -> Path:
    shards = [shard.name for shard in prepared.checkpoint.shards]
    names = [*shards, *prepared.checkpoint.carried, CONFIG, *([INDEX] if prepared.checkpoint.indexed else [])]
    return local_copy(prepared.base, names, Path(), own_files=False)


def _put_the_rest(prepared: Prepared, place: Workplace, folder: Path, shards: list[Finished]) -> None:
    """Write all but the weights."""
    files, dtype = LocalFiles(folder), prepared.request.dtype and DTYPES[prepared.request.dtype]
    for name in prepared.checkpoint.carried:
        place.put(name, files.read(name, 0, files.size(name)))
    place.put(CONFIG, manifest.config(files.read(CONFIG, 0, files.size(CONFIG)), dtype))
    if prepared.checkpoint.indexed:
        place.put(INDEX, manifest.index(files.read(INDEX, 0, files.size(INDEX)), prepared.checkpoint, dtype))
    lineage = _lineage(prepared, dtype)
    place.put(MANIFEST, manifest.manifest(lineage, prepared.plan, shards))
    place.put(CARD, manifest.card(lineage, prepared.plan))


def _lineage(prepared: Prepared, dtype: str | None) -> Lineage:
    named = _base_named(prepared.adapter_files.config_bytes or b"{}")
    return Lineage(
        base=_origin(prepared.base, remote=is_remote(prepared.request.base)),
        adapter=_origin(prepared.adapter, remote=is_remote(prepared.request.adapter)),
        summary=prepared.summary,
        base_named=named,
        dtype=dtype,
        versions=_versions(),
    )


def _origin(source: Source, *, remote: bool) -> Origin:
    return Origin(
        repo=source.name if remote else None, revision=source.revision, licence=source.licence, gated=source.gated
    )


def _base_named(config: bytes) -> str | None:
    named = json.loads(config).get("base_model_name_or_path")
    return named if isinstance(named, str) else None


def _fingerprint(prepared: Prepared, folder: Path) -> Mapping[str, object]:
    """Return what tells this merge from any other: the same fingerprint means the same bytes."""
    shards = []
    for shard in prepared.checkpoint.shards:
        facts = (folder / shard.name).stat()
        shards.append([shard.name, facts.st_size, facts.st_mtime_ns, hashlib.sha256(shard.head).hexdigest()])
    return {
        "format": _FORMAT,
        "adapter": prepared.summary.digest,
        "dtype": prepared.request.dtype,
        "shards": shards,
        "versions": dict(_versions()),
    }


def _versions() -> Mapping[str, str]:
    return {"lora-operator": __version__, "numpy": np.__version__, "python": platform.python_version()}
