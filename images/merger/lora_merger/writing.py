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
from lora_merger.blocks import Bench, Descriptors
from lora_merger.described import Finished
from lora_merger.digests import put_together, source_digest
from lora_merger.plan import Block, Plan, ShardPlan, Span, tasks
from lora_merger.refusal import ExitCode, Refusal, unwritable
from lora_merger.stopping import Stop

# So much is written before the disk is told to begin; left alone, the kernel waits until a tenth of memory is dirty.
_FLUSH_EVERY: Final = 128 * 1024 * 1024
# One hashes what is read, two wait for the disk.
_FINISHERS: Final = 3

Task = Callable[[Bench], None]


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
        failures: list[BaseException] = []
        with ExitStack() as stack:
            finishers = stack.enter_context(ThreadPoolExecutor(_FINISHERS, thread_name_prefix="finish"))
            workers = stack.enter_context(ThreadPoolExecutor(self.threads, thread_name_prefix="merge"))
            pool = _Pool(workers, self.plan, room=2 * self.threads, stop=self.stop, failures=failures)
            before: Callable[[], None] | None = None
            for shard in shards:
                # Two at a time: while one is forced to disk, the next is written.
                wait = self._shard(shard, pool, finishers, failures)
                if before is not None:
                    before()
                before = wait
                if failures:
                    break
            if before is not None:
                before()
        if failures:
            raise failures[0]

    def _shard(
        self, shard: ShardPlan, pool: _Pool, finishers: ThreadPoolExecutor, failures: list[BaseException]
    ) -> Callable[[], None]:
        """Hand a shard's tasks to the pool; return what waits for its end."""
        source = os.open(self.base / shard.name, os.O_RDONLY | os.O_CLOEXEC)
        target = os.open(
            self.target / shard.name, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666
        )
        files = Descriptors(source=source, target=target, adapter=self.adapter)
        digest = finishers.submit(self._source_digest, source, shard)
        flusher = _Flusher(target, finishers)
        changes: dict[int, bytes] = {}

        def advance(count: int) -> None:
            self.stop.check()
            flusher.advance(count)
            with self._lock:
                self.advance(count)

        def conclude() -> None:
            def end() -> None:
                try:
                    if not failures:
                        parts = [changes[number] for number in sorted(changes)]
                        self.finished(self._finish(shard, target, put_together(parts), digest.result()))
                except BaseException as error:  # noqa: BLE001 - kept for the caller, who raises it
                    failures.append(_told(error, f"finishing {shard.name}"))
                    self.stop.set()

            ending.append(finishers.submit(end))
            handed.set()

        ending: list[Future[None]] = []
        handed = threading.Event()
        pool.run(self._tasks(shard, files, advance, changes), f"writing {shard.name}", conclude)

        def wait() -> None:
            handed.wait()
            ending[0].result()
            if digest.exception() is not None and not failures:
                failures.append(_told(digest.exception() or RuntimeError(), f"reading {shard.name} of the base"))
            flusher.wait()
            os.close(source)
            os.close(target)

        return wait

    def _source_digest(self, source: int, shard: ShardPlan) -> str:
        known = self.vouched.get(shard.name)
        return source_digest(source, shard, self.stop) if known is None else known

    def _finish(self, shard: ShardPlan, target: int, changes: str, source_sha256: str) -> Finished:
        """Force a shard to disk."""
        self.stop.check()
        size = os.fstat(target).st_size
        if size != shard.target_size:
            raise Refusal(ExitCode.INPUT_OUTPUT, f"{shard.name}: {size} bytes lie there, not {shard.target_size}")
        os.fsync(target)
        return Finished(name=shard.name, size=size, changes=changes, source_sha256=source_sha256)

    def _tasks(
        self, shard: ShardPlan, files: Descriptors, advance: Callable[[int], None], changes: dict[int, bytes]
    ) -> Iterator[Task]:
        """Yield what there is to do; the tasks that compute leave their digests in *changes*, by their number."""
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
                    yield _change(span, run, files, advance, functools.partial(changes.__setitem__, next(number)))
            elif shared:
                advance(span.target_bytes)
            else:
                yield _copy(span, files, advance)


def _change(
    span: Span, run: Sequence[Block], files: Descriptors, advance: Callable[[int], None], note: Callable[[bytes], None]
) -> Task:
    return lambda bench: note(blocks.change(span, run, files, bench, advance=advance))


def _copy(span: Span, files: Descriptors, advance: Callable[[int], None]) -> Task:
    wanted = transfer.Range(start=span.source, into=span.target, count=span.source_bytes)
    return lambda _: transfer.copy_range(files.source, files.target, wanted, advance=advance)


class _Pool:
    """Runs tasks with a bound on how many wait, and tells when the last one of a shard is done."""

    def __init__(
        self, workers: ThreadPoolExecutor, plan: Plan, *, room: int, stop: Stop, failures: list[BaseException]
    ) -> None:
        self._workers, self._plan, self._stop, self._failures = workers, plan, stop, failures
        self._room = threading.Semaphore(room)
        self._local = threading.local()
        self._lock = threading.Lock()

    def run(self, shard_tasks: Iterator[Task], doing: str, conclude: Callable[[], None]) -> None:
        """Submit tasks until they end or one has failed; *conclude* is called once, after the last."""
        left = _Countdown(conclude)
        try:
            for task in shard_tasks:
                self._room.acquire()
                if self._failures:
                    self._room.release()
                    break
                left.add()
                self._workers.submit(self._one, task, doing, left)
        except (OSError, Refusal) as error:
            self._fail(error, doing)
        left.done()

    def _one(self, task: Task, doing: str, left: _Countdown) -> None:
        try:
            if not self._failures:
                self._stop.check()
                task(self._bench())
        except BaseException as error:  # noqa: BLE001 - kept for the caller, who raises it
            self._fail(error, doing)
        finally:
            self._room.release()
            left.done()

    def _bench(self) -> Bench:
        bench: Bench | None = self._local.__dict__.get("bench")
        if bench is None:
            bench = self._local.bench = Bench.of(self._plan)
        return bench

    def _fail(self, error: BaseException, doing: str) -> None:
        with self._lock:
            self._failures.append(_told(error, doing))
        self._stop.set()


class _Countdown:
    """Calls *conclude* when everything that was added, and the adding itself, is done."""

    def __init__(self, conclude: Callable[[], None]) -> None:
        self._conclude, self._left, self._lock = conclude, 1, threading.Lock()

    def add(self) -> None:
        with self._lock:
            self._left += 1

    def done(self) -> None:
        with self._lock:
            self._left -= 1
            last = self._left == 0
        if last:
            self._conclude()


class _Flusher:
    """Tells the disk to begin with what is written so far, one call at a time."""

    def __init__(self, target: int, finishers: ThreadPoolExecutor) -> None:
        self._target, self._finishers = target, finishers
        self._pending = 0
        self._call: Future[None] | None = None
        self._lock = threading.Lock()

    def advance(self, count: int) -> None:
        with self._lock:
            self._pending += count
            if self._pending >= _FLUSH_EVERY and (self._call is None or self._call.done()):
                self._pending = 0
                self._call = self._finishers.submit(os.fdatasync, self._target)

    def wait(self) -> None:
        """Return when no call is under way; what it met, the last sync meets too."""
        if self._call is not None:
            self._call.exception()


def _told(error: BaseException, doing: str) -> BaseException:
    return unwritable(error, doing=doing) if isinstance(error, OSError) else error
