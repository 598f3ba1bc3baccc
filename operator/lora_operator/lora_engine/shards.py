"""What the manifest is to hold, shard by shard, against what it holds. Pure.

A shard that is not there or can't be read is *unknown*: it is written again only when every adapter's pass has said
what it wants, for until then it may hold pins that nobody else remembers.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from lora_operator.engines.refusal import Refusal
from lora_operator.protocol.manifest import SHARDS, Entry, Owner, Shard, shard_of

MAX_BYTES: Final = 1_000_000
"""A ConfigMap holds 1 MiB, keys and all."""

Holders = Mapping[str, tuple[Entry, ...] | None]
"""By uid of a LoRAAdapter: the entries that it wants; None where its pass has not said so since we started."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """All entries that the pods are to hold, the shards to write for that, and what stands in the way."""

    entries: tuple[Entry, ...]
    writes: tuple[Shard, ...] = ()
    changed: tuple[Owner, ...] = ()
    """Whose entries the writes change."""
    problem: Refusal | None = None


def plan_manifest(holders: Holders, present: Mapping[int, Shard | None], *, adopted: bool, now: datetime) -> Manifest:
    """Return the manifest; `present` has the shards that exist, None for one that can't be read."""
    wanted = _wanted(holders, entries_of(present.values()))
    by_shard: dict[int, list[Entry]] = {index: [] for index in range(SHARDS)}
    for entry in wanted:
        by_shard[shard_of(entry.engine_name)].append(entry)
    may_guess = not adopted or None not in holders.values()
    shards = [
        _next(index, tuple(entries), present.get(index), may_guess=may_guess, now=now)
        for index, entries in by_shard.items()
    ]
    writes = tuple(shard for shard in shards if shard is not None and len(shard.to_json()) <= MAX_BYTES)
    return Manifest(
        entries=wanted,
        writes=writes,
        changed=_changed(writes, present),
        problem=_full(shards) or (None if may_guess else _unknown(present)),
    )


def entries_of(shards: Iterable[Shard | None]) -> list[Entry]:
    """Return the entries of the shards that can be read."""
    return [entry for shard in shards if shard is not None for entry in shard.entries]


def _wanted(holders: Holders, held: list[Entry]) -> tuple[Entry, ...]:
    wanted = {
        entry.engine_name: entry
        for uid, entries in holders.items()
        for entry in (entries if entries is not None else [entry for entry in held if entry.owner.uid == uid])
    }
    return tuple(wanted[name] for name in sorted(wanted))


def _next(
    index: int, entries: tuple[Entry, ...], present: Shard | None, *, may_guess: bool, now: datetime
) -> Shard | None:
    """Return the shard to write; None where it holds these entries, or must not be touched."""
    if present is not None:
        revision = present.revision + 1
        return Shard(index=index, revision=revision, entries=entries) if present.entries != entries else None
    # Its last revision is unknown: seconds since 1970 are above whatever it was.
    return Shard(index=index, revision=int(now.timestamp()), entries=entries) if may_guess else None


def _changed(writes: Iterable[Shard], present: Mapping[int, Shard | None]) -> tuple[Owner, ...]:
    owners: dict[str, Owner] = {}
    for shard in writes:
        before = present.get(shard.index)
        was = {entry.engine_name: entry for entry in before.entries} if before is not None else {}
        now = {entry.engine_name: entry for entry in shard.entries}
        for name in was.keys() | now.keys():
            if was.get(name) != now.get(name):
                owner = (now.get(name) or was[name]).owner
                owners[owner.uid] = owner
    return tuple(owners.values())


def _full(shards: Iterable[Shard | None]) -> Refusal | None:
    full = [shard for shard in shards if shard is not None and len(shard.to_json()) > MAX_BYTES]
    if not full:
        return None
    return Refusal(
        "ManifestFull",
        f"the manifest's shard {full[0].index} would hold {len(full[0].entries)} adapters in"
        f" {len(full[0].to_json())} bytes, and a ConfigMap holds {MAX_BYTES}: delete LoRAAdapters of this engine, or"
        " move some to another",
    )


def _unknown(present: Mapping[int, Shard | None]) -> Refusal | None:
    unknown = [index for index in range(SHARDS) if present.get(index) is None]
    if not unknown:
        return None
    return Refusal(
        "ManifestUnreadable",
        f"{len(unknown)} shards of the manifest can't be read; they are written again once every LoRAAdapter of this"
        " engine is resolved",
    )
