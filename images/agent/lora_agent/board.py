"""The report that the operator waits for: published when it says something new, under a sequence that only grows."""

from __future__ import annotations

import asyncio
import contextlib
import time
import uuid

from lora_operator.protocol.door import Report


class Board:
    """Holds the newest report and wakes who waits for it."""

    def __init__(self, first: Report) -> None:
        # From the wall clock, so that a reader who knew an earlier agent of this pod sees this one as newer.
        self._report = first.model_copy(
            update={"instance": uuid.uuid4().hex[:12], "sequence": time.time_ns() // 1_000_000}
        )
        self._changed = asyncio.Event()

    @property
    def report(self) -> Report:
        """The newest report."""
        return self._report

    def publish(self, report: Report) -> None:
        """Make this the newest report, if it says anything new."""
        last = self._report
        same = report.model_copy(update={"instance": last.instance, "sequence": last.sequence})
        if same == last:
            return
        self._report = same.model_copy(update={"sequence": last.sequence + 1})
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    async def newer(self, *, after: int, wait_seconds: float) -> Report:
        """Return the newest report, as soon as it is newer than `after`, else when the time is over."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(wait_seconds):
                while self._report.sequence <= after:
                    await self._changed.wait()
        return self._report
