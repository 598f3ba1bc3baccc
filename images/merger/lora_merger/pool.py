"""The threads of a merge: a pool with a short line before it, what went wrong in any of them, and the disk's turn."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Final

from lora_merger.blocks import Bench
from lora_merger.plan import Plan
from lora_merger.refusal import Refusal, unwritable
from lora_merger.stopping import Stop

# So much is written before the disk is told to begin; left alone, the kernel waits until a tenth of memory is dirty.
_FLUSH_EVERY: Final = 128 * 1024 * 1024

Task = Callable[[Bench], None]


class Failures:
    """What went wrong in any thread: the first of it is raised, once all have ended; and it ends them all."""

    def __init__(self, stop: Stop) -> None:
        self._stop = stop
        self._errors: list[BaseException] = []
        self._lock = threading.Lock()

    def __bool__(self) -> bool:
        return bool(self._errors)

    def note(self, error: BaseException, doing: str) -> None:
        """Keep an error, and ask everything to stop."""
        with self._lock:
            self._errors.append(unwritable(error, doing=doing) if isinstance(error, OSError) else error)
        self._stop.set()

    def raise_first(self) -> None:
        """Raise what came first, if anything did."""
        if self._errors:
            raise self._errors[0]


class Pool:
    """Runs tasks with a bound on how many wait, and tells when the last one of a shard is done."""

    def __init__(self, workers: ThreadPoolExecutor, plan: Plan, *, room: int, stop: Stop, failures: Failures) -> None:
        self._workers, self._plan, self._stop, self._failures = workers, plan, stop, failures
        self._room = threading.Semaphore(room)
        self._local = threading.local()

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
            self._failures.note(error, doing)
        left.done()

    def _one(self, task: Task, doing: str, left: _Countdown) -> None:
        try:
            if not self._failures:
                self._stop.check()
                task(self._bench())
        except BaseException as error:  # noqa: BLE001 - kept for the caller, who raises it
            self._failures.note(error, doing)
        finally:
            self._room.release()
            left.done()

    def _bench(self) -> Bench:
        bench: Bench | None = self._local.__dict__.get("bench")
        if bench is None:
            bench = self._local.bench = Bench.of(self._plan)
        return bench


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


class Flusher:
    """Tells the disk to begin with what is written so far, one call at a time."""

    def __init__(self, target: int, finishers: ThreadPoolExecutor) -> None:
        self._target, self._finishers = target, finishers
        self._pending = 0
        self._call: Future[None] | None = None
        self._lock = threading.Lock()

    def advance(self, count: int) -> None:
        """Hear of bytes just written."""
        with self._lock:
            self._pending += count
            if self._pending >= _FLUSH_EVERY and (self._call is None or self._call.done()):
                self._pending = 0
                self._call = self._finishers.submit(os.fdatasync, self._target)

    def wait(self) -> None:
        """Return when no call is under way; what it met, the last sync meets too."""
        if self._call is not None:
            self._call.exception()
