"""The report that the operator waits for: published when it says something new, under a sequence that only grows."""

from __future__ import annotations

import asyncio
import contextlib
import uuid

from lora_operator.protocol.door import Report


class Board:
    """Holds the newest report and wakes who waits for it."""

    def __init__(self, first: Report) -> None:
        self._report = first.model_copy(update={"instance": uuid.uuid4().hex[:12]})
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

    async def newer(self, *, instance: str, after: int, wait_seconds: float) -> Report:
        """Return the newest report, as soon as it is newer than the one heard, else when the time is over."""
        if instance != self._report.instance:
            return self._report
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(wait_seconds):
                while self._report.sequence <= after:
                    await self._changed.wait()
        return self._report
