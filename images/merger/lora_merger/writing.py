"""All shards, by a pool of threads: copies and runs of blocks, in the order of the files, a few of them in flight.

The base's shard is hashed, where that is needed, and the output's forced to disk by threads of their own, while the
next one is written; so the disk is busy from the first second on.
"""

from __future__ import annotations

import functools
import itertools
import os
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from lora_merger import blocks, transfer
from lora_merger.blocks import Descriptors
from lora_merger.described import Finished
from lora_merger.digests import put_together, source_digest
from lora_merger.plan import Block, Plan, ShardPlan, Span, tasks
from lora_merger.pool import Failures, Flusher, Pool, Task
from lora_merger.refusal import ExitCode, Refusal
from lora_merger.stopping import Stop

# One hashes what is read, two wait for the disk.
_FINISHERS: Final = 3


@dataclass(kw_only=True)
class Writing:
    """Where everything lies, and who hears of it."""

    plan: Plan
    base: Path
    vouched: Mapping[str, str]
    """The sha256 of those of the base's shards that need not be hashed."""
    adapter: int
    target: Path
    threads: int
    stop: Stop
    advance: Callable[[int], None]
    finished: Callable[[Finished], None]
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def write(self, shards: Sequence[ShardPlan]) -> None:
        """Write *shards*; raises the first trouble after every thread has stopped."""
        failures = Failures(self.stop)
        with ExitStack() as stack:
            finishers = stack.enter_context(ThreadPoolExecutor(_FINISHERS, thread_name_prefix="finish"))
            workers = stack.enter_context(ThreadPoolExecutor(self.threads, thread_name_prefix="merge"))
            pool = Pool(workers, self.plan, room=2 * self.threads, stop=self.stop, failures=failures)
            before: _Shard | None = None
            for shard in shards:
                # Two at a time: while one is forced to disk, the next is written.
                current = _Shard(self, shard, finishers, failures)
                pool.run(current.tasks(), f"writing {shard.name}", current.conclude)
                if before is not None:
                    before.wait()
                before = current
                if failures:
                    break
            if before is not None:
                before.wait()
        failures.raise_first()

    def tell(self, count: int) -> None:
        """Hear of bytes from any thread."""
        with self._lock:
            self.advance(count)


class _Shard:
    """One shard, from its opening to its being on disk."""

    def __init__(self, writing: Writing, shard: ShardPlan, finishers: ThreadPoolExecutor, failures: Failures) -> None:
        self._writing, self._shard, self._finishers, self._failures = writing, shard, finishers, failures
        self._files = Descriptors(
            source=os.open(writing.base / shard.name, os.O_RDONLY | os.O_CLOEXEC),
            target=os.open(
                writing.target / shard.name,
                os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC,
                0o666,
            ),
            adapter=writing.adapter,
        )
        self._flusher = Flusher(self._files.target, finishers)
        self._digest = finishers.submit(self._source_digest)
        # Of each task that computes, by its number.
        self._changes: dict[int, bytes] = {}
        self._ending: Future[None] | None = None
        self._handed = threading.Event()

    def tasks(self) -> Iterator[Task]:
        """Yield what there is to do."""
        shard, files = self._shard, self._files
        shared = shard.head is None and transfer.reflink(files.source, files.target)
        if not shared:
            os.ftruncate(files.target, shard.target_size)
        if shard.head is not None:
            transfer.write_all(files.target, memoryview(shard.head), 0)
        number = itertools.count()
        for span in shard.spans:
            if not span.is_copy:
                for run in tasks(span):
                    # A pool's length ahead of the threads: the disk reads while they compute.
                    transfer.will_need(files.source, *span.source_of(run))
                    yield functools.partial(self._change, next(number), span, run)
            elif shared:
                self._advance(span.target_bytes)
            else:
                yield functools.partial(self._copy, span)

    def conclude(self) -> None:
        """Let the last thread that worked on it hand it to those that finish."""
        self._ending = self._finishers.submit(self._finish)
        self._handed.set()

    def wait(self) -> None:
        """Return when it is on disk, or has failed."""
        self._handed.wait()
        if self._ending is not None:
            self._ending.result()
        self._flusher.wait()
        os.close(self._files.source)
        os.close(self._files.target)

    def _change(self, number: int, span: Span, run: Sequence[Block], bench: blocks.Bench) -> None:
        self._changes[number] = blocks.change(span, run, self._files, bench, advance=self._advance)

    def _copy(self, span: Span, _: blocks.Bench) -> None:
        wanted = transfer.Range(start=span.source, into=span.target, count=span.source_bytes)
        transfer.copy_range(self._files.source, self._files.target, wanted, advance=self._advance)

    def _advance(self, count: int) -> None:
        self._writing.stop.check()
        self._flusher.advance(count)
        self._writing.tell(count)

    def _source_digest(self) -> str:
        known = self._writing.vouched.get(self._shard.name)
        return known or source_digest(self._files.source, self._shard, self._writing.stop)

    def _finish(self) -> None:
        doing = f"reading {self._shard.name} of the base"
        try:
            sha256 = self._digest.result()
            doing = f"finishing {self._shard.name}"
            if not self._failures:
                self._writing.finished(self._force_to_disk(sha256))
        except BaseException as error:  # noqa: BLE001 - kept for the caller, who raises it
            self._failures.note(error, doing)

    def _force_to_disk(self, source_sha256: str) -> Finished:
        self._writing.stop.check()
        name, target = self._shard.name, self._files.target
        size = os.fstat(target).st_size
        if size != self._shard.target_size:
            raise Refusal(ExitCode.INPUT_OUTPUT, f"{name}: {size} bytes lie there, not {self._shard.target_size}")
        os.fsync(target)
        changes = put_together(self._changes[number] for number in sorted(self._changes))
        return Finished(name=name, size=size, changes=changes, source_sha256=source_sha256)
