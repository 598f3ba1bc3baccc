"""What is wanted, from two sources that may disagree for a while: the mounted manifest and what the operator pushes.

The higher revision wins and is kept in the adapters volume, so that neither a mount that lags nor a restart of the
agent undoes a push. Absent, unreadable or of an unknown version means unknown: what was known stays.
"""

from __future__ import annotations

import logging
from pathlib import Path

from lora_agent.disk import write_whole
from lora_operator.protocol.manifest import SHARDS, Entry, Shard, read_shard, shard_of

_log = logging.getLogger(__name__)
_Signature = tuple[int, int, int]


class Shards:
    """The last shard acted on, for each index."""

    def __init__(self, *, state: Path, mount: Path) -> None:
        self._state = state
        self._mount = mount
        self._seen: dict[int, _Signature] = {}
        self._held: dict[int, Shard] = {}
        self._unkept: set[int] = set()
        """What is acted on and not on the disk yet, for that took no more."""
        self._failing = False
        for index in range(SHARDS):
            shard = _read(self._kept(index), index)
            if shard is not None:
                self._held[index] = shard
        self.poll()

    @property
    def revisions(self) -> dict[str, int]:
        """Shard index, as a string -> the revision acted on."""
        return {str(index): shard.revision for index, shard in sorted(self._held.items())}

    def wanted(self) -> dict[str, Entry]:
        """Return every entry of every shard, by engine name."""
        return {entry.engine_name: entry for shard in self._held.values() for entry in shard.entries}

    def knows(self, engine_name: str) -> bool:
        """Tell whether the shard is known that would hold this name: only then does its absence mean anything."""
        return shard_of(engine_name) in self._held

    def poll(self) -> bool:
        """Read what is new in the mount; tells whether something changed."""
        self._keep()
        changed = False
        for index in range(SHARDS):
            path = self._mount / f"{index}.json"
            signature = _signature(path)
            if signature is None or self._seen.get(index) == signature:
                continue
            self._seen[index] = signature
            shard = _read(path, index)
            changed |= shard is not None and self.offer(shard)
        return changed

    def offer(self, shard: Shard) -> bool:
        """Take a shard if it is newer than the one held: onto the disk, and acted on.

        Acted on as well where the disk is full: what it no longer names may be all that can go.
        """
        held = self._held.get(shard.index)
        if held is not None and shard.revision <= held.revision:
            return False
        self._held[shard.index] = shard
        self._unkept.add(shard.index)
        self._keep()
        _log.info("took shard", extra={"shard": shard.index, "revision": shard.revision, "entries": len(shard.entries)})
        return True

    def _keep(self) -> None:
        for index in sorted(self._unkept):
            try:
                write_whole(self._kept(index), self._held[index].to_json())
            except OSError as error:
                if not self._failing:
                    _log.warning("shards can't be kept for a restart", extra={"problem": str(error)})
                self._failing = True
                return
            self._unkept.discard(index)
        self._failing = False

    def _kept(self, index: int) -> Path:
        return self._state / f"shard-{index}.json"


def _read(path: Path, index: int) -> Shard | None:
    try:
        shard = read_shard(path.read_bytes())
    except OSError:
        return None
    if shard is None or shard.index != index:
        _log.warning("a shard is unreadable, what is held stays", extra={"path": str(path)})
        return None
    return shard


def _signature(path: Path) -> _Signature | None:
    """Return what changes when kubelet swaps the file."""
    try:
        stat = path.stat()
    except OSError:
        return None
    return (stat.st_ino, stat.st_mtime_ns, stat.st_size)
