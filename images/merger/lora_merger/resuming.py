"""What an earlier run has finished: taken up only where all of it is still what that run wrote, from the same base."""

from __future__ import annotations

import os
import stat
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from lora_merger.described import Finished
from lora_merger.digests import changes_digest, source_digest
from lora_merger.plan import ShardPlan
from lora_merger.stopping import Stop
from lora_merger.transfer import Range, is_same


@dataclass(frozen=True, slots=True, kw_only=True)
class Resuming:
    """The directories of a merge that is taken up. *hashed*: the base's shards that nobody vouches for."""

    base: Path
    model: Path
    hashed: frozenset[str]
    stop: Stop

    def is_whole(self, shard: ShardPlan, finished: Finished) -> bool:
        """Tell whether a shard is what the journal says: what was computed by its digest, the rest by the base."""
        try:
            with ExitStack() as stack:
                source = os.open(self.base / shard.name, os.O_RDONLY | os.O_CLOEXEC)
                stack.callback(os.close, source)
                target = os.open(self.model / shard.name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
                stack.callback(os.close, target)
                facts = os.fstat(target)
                return (
                    stat.S_ISREG(facts.st_mode)
                    and facts.st_size == finished.size == shard.target_size
                    and os.pread(target, len(shard.head or b""), 0) == (shard.head or b"")
                    and changes_digest(target, shard, self.stop) == finished.changes
                    and self._copies_are_whole(shard, source, target)
                    and (
                        shard.name not in self.hashed
                        or source_digest(source, shard, self.stop) == finished.source_sha256
                    )
                )
        except OSError:
            return False

    def _copies_are_whole(self, shard: ShardPlan, source: int, target: int) -> bool:
        return all(
            is_same(
                source,
                target,
                Range(start=span.source, into=span.target, count=span.source_bytes),
                advance=lambda _: self.stop.check(),
            )
            for span in shard.spans
            if span.is_copy
        )
