"""`merge`: the order of the steps, from two references to a directory that is whole.

What can be refused is refused before a byte is written; what is written becomes OUT by one rename, at the very end.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

import numpy as np

from lora_merger import manifest
from lora_merger.checkpoint import CARD, CONFIG, INDEX, MANIFEST
from lora_merger.described import Finished
from lora_merger.digests import file_digest
from lora_merger.files import LocalFiles, Source
from lora_merger.manifest import Lineage, Origin
from lora_merger.plan import Plan
from lora_merger.preparing import DTYPES, MergeRequest, Prepared, State, prepare, state_of
from lora_merger.refusal import ExitCode, Refusal, not_mergeable, unwritable
from lora_merger.resuming import Resuming
from lora_merger.space import refuse_if_too_full
from lora_merger.stopping import Stop
from lora_merger.verifying import Checked, Verifier
from lora_merger.workplace import Workplace, workplace
from lora_merger.writing import Writing
from lora_operator import __version__
from lora_operator.adapter import WEIGHTS, Finding

__all__ = ["MergeRequest", "Merged", "Stage", "merge"]

Stage = Literal["merging", "verifying"]
# Raised whenever the bytes of an output would differ: what an older version has finished is then made anew.
_FORMAT: Final = 2
_MOST_THREADS: Final = 4
# For card and manifest, and what a file system needs for itself.
_BESIDE: Final = 16 * 1024 * 1024


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
    with ExitStack() as stack:
        prepared = stack.enter_context(prepare(request, stop))
        try:
            place = stack.enter_context(workplace(prepared.request.out))
            return _merge_or_give_up(prepared, place, progress, stop)
        except OSError as error:
            raise unwritable(error, doing=f"writing {prepared.request.out}") from error


def _merge_or_give_up(
    prepared: Prepared, place: Workplace, progress: Callable[[Stage, int, int], None], stop: Stop
) -> Merged:
    try:
        return _merge(prepared, place, progress, stop)
    except Refusal as refusal:
        if refusal.code is ExitCode.NOT_MERGEABLE:
            place.give_up()
        raise


def _merge(prepared: Prepared, place: Workplace, progress: Callable[[Stage, int, int], None], stop: Stop) -> Merged:
    plan = prepared.plan
    folder = _base_folder(prepared, place, stop)
    before = prepared.state or state_of(folder, prepared.shards)
    hashed = frozenset(prepared.shards) - prepared.vouched.keys()
    kept = place.take_up(
        _fingerprint(prepared), plan, Resuming(base=folder, model=place.model, hashed=hashed, stop=stop)
    )
    missing = [shard for shard in plan.shards if shard.name not in kept]
    beside = sum((folder / name).stat().st_size for name in prepared.beside)
    refuse_if_too_full([(place.out.parent, sum(shard.target_size for shard in missing) + beside + _BESIDE)])
    finished = dict(kept)

    def note(shard: Finished) -> None:
        expected = prepared.base.sha256.get(shard.name)
        if expected is not None and expected != shard.source_sha256:
            # The Hub's client would take it from its cache for ever.
            where = (folder / shard.name).resolve()
            raise not_mergeable(
                f"{shard.name} of the base is not what the Hub says it is: remove {where}, and try again"
            )
        place.note(shard)
        finished[shard.name] = shard

    total = sum(shard.target_size for shard in missing)
    Writing(
        plan=plan,
        base=folder,
        vouched=prepared.vouched,
        adapter=prepared.weights,
        target=place.model,
        threads=prepared.request.threads or min(_MOST_THREADS, len(os.sched_getaffinity(0))),
        stop=stop,
        advance=lambda count: progress("merging", count, total),
        finished=note,
    ).write(missing)
    try:
        _refuse_if_changed(prepared, folder, before, stop)
        checked = _verified(prepared, folder, place.model, progress, stop)
    except Refusal as refusal:
        if refusal.code in {ExitCode.NOT_VERIFIED, ExitCode.INPUT_OUTPUT}:
            # What is wrong would be kept, and wrong again, as often as it is run.
            place.forget()
        raise
    _put_the_rest(prepared, place, folder, [finished[shard.name] for shard in plan.shards])
    stop.check()
    place.publish()
    return Merged(out=prepared.request.out, plan=plan, resumed=len(kept), checked=checked, warnings=prepared.warnings)


def _verified(
    prepared: Prepared, folder: Path, model: Path, progress: Callable[[Stage, int, int], None], stop: Stop
) -> Checked:
    plan = prepared.plan
    return Verifier(
        plan=plan,
        base=folder,
        adapter=prepared.weights,
        model=model,
        everything=prepared.request.verify,
        stop=stop,
        advance=lambda count: progress("verifying", count, plan.bytes_written),
    ).verify()


def _base_folder(prepared: Prepared, place: Workplace, stop: Stop) -> Path:
    base = prepared.base
    if isinstance(base.files, LocalFiles):
        return base.files.folder
    from lora_merger import hub  # noqa: PLC0415

    names = [*prepared.shards, *prepared.beside]
    cache, missing = hub.missing_bytes(base, names)
    beside = sum(base.files.size(name) for name in prepared.beside)
    output = prepared.plan.bytes_written + beside + _BESIDE - place.bytes_there()
    refuse_if_too_full([(place.out.parent, output), (cache, missing)])
    return hub.download(base, names, None, stop)


def _refuse_if_changed(prepared: Prepared, folder: Path, before: State, stop: Stop) -> None:
    if state_of(folder, prepared.shards) != before:
        raise Refusal(
            ExitCode.INPUT_OUTPUT, "the base changed while it was read: run it again when nobody writes to it"
        )
    if file_digest(prepared.weights, stop)[0] != prepared.judged.files[WEIGHTS].sha256:
        raise Refusal(
            ExitCode.INPUT_OUTPUT,
            f"{WEIGHTS} of the adapter changed after it was judged: run it again when nobody writes to it",
        )


def _put_the_rest(prepared: Prepared, place: Workplace, folder: Path, shards: list[Finished]) -> None:
    """Write all but the weights."""
    files, dtype = LocalFiles(folder), prepared.request.dtype and DTYPES[prepared.request.dtype]
    place.keep_only({*prepared.shards, *prepared.beside, MANIFEST, CARD})
    for name in prepared.checkpoint.carried:
        place.carry(folder / name)
    place.put(CONFIG, manifest.config(files.read(CONFIG, 0, files.size(CONFIG)), dtype))
    if prepared.checkpoint.indexed:
        place.put(INDEX, manifest.index(files.read(INDEX, 0, files.size(INDEX)), prepared.checkpoint, dtype))
    lineage = _lineage(prepared, dtype)
    place.put(MANIFEST, manifest.manifest(lineage, prepared.plan, shards))
    place.put(CARD, manifest.card(lineage, prepared.plan))


def _lineage(prepared: Prepared, dtype: str | None) -> Lineage:
    return Lineage(
        base=_origin(prepared.base),
        adapter=_origin(prepared.adapter),
        summary=prepared.summary,
        base_named=_base_named(prepared.judged.config_bytes or b"{}"),
        vouched=frozenset(prepared.vouched),
        dtype=dtype,
        versions=_versions(),
    )


def _origin(source: Source) -> Origin:
    return Origin(repo=source.repo, revision=source.revision, licence=source.licence, gated=source.gated)


def _base_named(config: bytes) -> str | None:
    named = json.loads(config).get("base_model_name_or_path")
    return named if isinstance(named, str) else None


def _fingerprint(prepared: Prepared) -> Mapping[str, object]:
    """Return what tells this merge from any other, as far as it is known before the base is read."""
    shards = prepared.checkpoint.shards
    return {
        "format": _FORMAT,
        "adapter": prepared.summary.digest,
        "dtype": prepared.request.dtype,
        "heads": {shard.name: hashlib.sha256(shard.head).hexdigest() for shard in shards},
        "vouched": dict(prepared.vouched),
        "versions": dict(_versions()),
    }


def _versions() -> Mapping[str, str]:
    return {"lora-operator": __version__, "numpy": np.__version__, "python": platform.python_version()}
