"""Stopping: one flag that a signal sets and every thread looks at between two blocks."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from lora_merger.refusal import ExitCode, Refusal


class Stop:
    """Set once, by a signal or by the first thread that fails."""

    def __init__(self) -> None:
        self._event = threading.Event()
        self._signal: int | None = None

    def set(self, signum: int | None = None) -> None:
        """Ask everything to stop."""
        self._signal = self._signal or signum
        self._event.set()

    def check(self) -> None:
        """Raise where something asked to stop."""
        if self._event.is_set():
            code = ExitCode.INTERRUPTED if self._signal == signal.SIGINT else ExitCode.TERMINATED
            raise Refusal(code, "stopped. Nothing was published; run it again to go on")


@contextmanager
def on_signals(stop: Stop) -> Iterator[None]:
    """Let SIGINT and SIGTERM ask to stop while the context is open."""

    def caught(signum: int, _frame: FrameType | None) -> None:
        stop.set(signum)

    before = {number: signal.signal(number, caught) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
