"""SIGTERM: at once where nothing would be lost, else after the step, or after the upload, that is under way."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from lora_trainer import log


class Preemption(BaseException):
    """SIGTERM before the end. Not an Exception, so that no library on the way takes it for a failure of its own."""


class Preemptions:
    """Whether SIGTERM came, and whether it may end what is going on."""

    def __init__(self) -> None:
        self.requested = False
        self._held = False

    def listen(self) -> None:
        """Take SIGTERM from here on."""
        signal.signal(signal.SIGTERM, self._arrived)

    @contextmanager
    def held(self, why: str) -> Iterator[None]:
        """Keep SIGTERM from ending what runs inside; whoever runs there looks at `requested`."""
        before, self._held, self._why = self._held, True, why
        try:
            yield
        finally:
            self._held = before

    def check(self) -> None:
        """End here if SIGTERM came before."""
        if self.requested:
            raise Preemption("SIGTERM")

    def sleep(self, seconds: float) -> None:
        """Wait, for the Hub above all: SIGTERM ends that even where it is held."""
        before, self._held = self._held, False
        try:
            self.check()
            time.sleep(seconds)
        finally:
            self._held = before

    def _arrived(self, _signal: int, _frame: FrameType | None) -> None:
        if self.requested and not self._held:
            return  # on the way out already: a second one must not end that
        self.requested = True
        if not self._held:
            raise Preemption("SIGTERM")
        log.say(f"SIGTERM: {self._why}")
