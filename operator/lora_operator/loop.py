"""Runs passes: takes keys off one queue, bounds how many run at once, and decides by type what follows a failure.

The only place that catches everything and the only place that logs a failed pass.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from typing import Final

from kubernetes.aio.client.exceptions import ApiException

from lora_operator import metrics
from lora_operator.errors import Blocked, ChangedError, PassError, Waiting
from lora_operator.labels import Key
from lora_operator.workqueue import WorkQueue

logger = logging.getLogger(__name__)

BLOCKED_RETRY: Final = 60.0
"""Seconds after which a blocked key is looked at again: some of its causes have no watch."""


def retry_after(problem: PassError | None) -> float | None:
    """Return the seconds after which a pass that tells of a problem in a status looks again; None without one."""
    if problem is None:
        return None
    return problem.after if isinstance(problem, Waiting) else BLOCKED_RETRY


def soonest(*waits: float | None) -> float | None:
    """Return the shortest of the waits that are any."""
    return min((wait for wait in waits if wait is not None), default=None)


Reconcile = Callable[[Key], Awaitable[float | None]]
"""One pass. Returns the seconds after which it wants to run again, or None."""


class Controller:
    """One queue, one kind of pass, at most `workers` at a time (None: no bound)."""

    def __init__(self, name: str, reconcile: Reconcile, *, workers: int | None) -> None:
        self.name = name
        self.queue = WorkQueue()
        self._reconcile = reconcile
        self._slots = asyncio.Semaphore(workers) if workers is not None else None
        self._passes: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        """Hand out keys until cancelled; passes in flight are cancelled with it."""
        metrics.WORKQUEUE_DEPTH.labels(self.name).set_function(lambda: len(self.queue))
        try:
            while True:
                if self._slots:
                    await self._slots.acquire()
                key = await self.queue.get()
                task = asyncio.create_task(self._pass(key), name=str(key))
                self._passes.add(task)
                task.add_done_callback(self._passes.discard)
        finally:
            for task in self._passes:
                task.cancel()
            await asyncio.gather(*self._passes, return_exceptions=True)

    async def _pass(self, key: Key) -> None:
        started = time.monotonic()
        result = "error"
        try:
            with metrics.ACTIVE_WORKERS.labels(self.name).track_inprogress():
                result = await self._attempt(key)
        finally:
            metrics.RECONCILE_TOTAL.labels(self.name, result).inc()
            metrics.RECONCILE_TIME.labels(self.name).observe(time.monotonic() - started)
            self.queue.done(key)
            if self._slots:
                self._slots.release()

    async def _attempt(self, key: Key) -> str:
        try:
            after = await self._reconcile(key)
        except Waiting as waiting:
            self.queue.forget(key)
            self.queue.add(key, after=waiting.after)
            return "requeue_after"
        except Blocked:
            self.queue.forget(key)
            self.queue.add(key, after=BLOCKED_RETRY)
            return "blocked"
        except ChangedError as changed:
            self.queue.retry(key)
            logger.info("pass starts over: %s", changed, extra={"controller": self.name, "key": str(key)})
            return "requeue"
        except Exception as error:
            extra = {"controller": self.name, "key": str(key), "retry": self.queue.retry(key)}
            metrics.RECONCILE_ERRORS.labels(self.name).inc()
            if isinstance(error, ApiException):
                logger.warning("the apiserver answers %s: %s", error.status, error.body, extra=extra)
            else:
                logger.warning("pass failed: %s", error, exc_info=error, extra=extra)
            return "error"
        self.queue.forget(key)
        if after is None:
            return "success"
        self.queue.add(key, after=after)
        return "requeue_after"
