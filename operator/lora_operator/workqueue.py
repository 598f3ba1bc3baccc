"""The coalescing work queue between what was seen and the passes: client-go's semantics.

A key is in the queue once however often it is added; it is never handed out twice at the same time; one that is added
while its pass runs is handed out again afterwards. Failing keys come back later and later, with jitter.
"""

from __future__ import annotations

import asyncio
import heapq
import random
from typing import Final

from lora_operator.labels import Key

BASE_DELAY: Final = 0.2
MAX_DELAY: Final = 300.0


class WorkQueue:
    """Keys that are due, waiting or being worked on. Times are seconds of the event loop's clock."""

    def __init__(self) -> None:
        self._due: dict[Key, float] = {}
        self._heap: list[tuple[float, Key]] = []
        self._running: dict[Key, asyncio.Event] = {}
        self._again: dict[Key, float] = {}
        self._failures: dict[Key, int] = {}
        self._changed = asyncio.Event()

    def __len__(self) -> int:
        """Return how many keys are due now and not being worked on."""
        now = asyncio.get_running_loop().time()
        return sum(due <= now for due in self._due.values())

    def add(self, key: Key, *, after: float = 0.0) -> None:
        """Put a key on the queue, due in `after` seconds; the earliest time that was asked for holds."""
        due = asyncio.get_running_loop().time() + after
        if key in self._running:
            self._again[key] = min(due, self._again.get(key, due))
            if after == 0.0:
                self._running[key].set()
        elif due < self._due.get(key, float("inf")):
            self._due[key] = due
            heapq.heappush(self._heap, (due, key))
            self._changed.set()

    def retry(self, key: Key) -> float:
        """Put a failed key back with exponential back-off and jitter; return the delay in seconds."""
        failures = self._failures.get(key, 0)
        self._failures[key] = failures + 1
        delay: float = min(MAX_DELAY, BASE_DELAY * 2 ** min(failures, 20)) * random.uniform(0.5, 1.0)  # noqa: S311 - jitter
        self.add(key, after=delay)
        return delay

    def forget(self, key: Key) -> None:
        """Forget a key's failures: its pass went well."""
        self._failures.pop(key, None)

    async def get(self) -> Key:
        """Wait for a key that is due, mark it as running and return it."""
        loop = asyncio.get_running_loop()
        while True:
            self._changed.clear()
            while self._heap and self._due.get(self._heap[0][1]) != self._heap[0][0]:
                heapq.heappop(self._heap)
            wait = self._heap[0][0] - loop.time() if self._heap else None
            if wait is not None and wait <= 0:
                _, key = heapq.heappop(self._heap)
                del self._due[key]
                self._running[key] = asyncio.Event()
                return key
            try:
                async with asyncio.timeout(wait):
                    await self._changed.wait()
            except TimeoutError:
                continue

    def woken(self, key: Key) -> asyncio.Event:
        """Return the event that is set when this running key is added again: a pass that waits may end early."""
        return self._running[key]

    def done(self, key: Key) -> None:
        """Mark a key's pass as ended; if it was added meanwhile, it is due again."""
        del self._running[key]
        if (again := self._again.pop(key, None)) is not None:
            self.add(key, after=max(0.0, again - asyncio.get_running_loop().time()))
