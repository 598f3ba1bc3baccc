"""SIGTERM and Ctrl-C: at once where nothing would be lost, else after the step or the upload that is under way.

A person who presses Ctrl-C again means at once. Nothing half-made counts, as after a kill.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Final

from lora_trainer import log

SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)


class Preemption(BaseException):
    """A signal before the end. Not an Exception, so that no library on the way takes it for a failure of its own."""


class Preemptions:
    """Whether a signal to end came, and whether it may end what is going on."""

    def __init__(self) -> None:
        self.requested = False
        self._held = self._breakable = False
        self._listening = False
        self.name = "SIGTERM"
        """The signal's; SIGTERM, too, where another process heard it."""

    def listen(self) -> None:
        """Take SIGTERM, and the SIGINT of a Ctrl-C, from here on."""
        for number in SIGNALS:
            signal.signal(number, self._arrived)
        self._listening = True

    def ignore(self) -> None:
        """Take no more, if they were taken."""
        for number in SIGNALS if self._listening else ():
            signal.signal(number, signal.SIG_IGN)

    @contextmanager
    def held(self, why: str, *, breakable: bool = False) -> Iterator[None]:
        """Keep a signal from ending what runs inside; whoever runs there looks at `requested`.

        Where it is breakable, another Ctrl-C ends it.
        """
        before, self._held, self._breakable, self._why = self._held, True, breakable, why
        try:
            yield
        finally:
            self._held = before

    def check(self) -> None:
        """End here if a signal came before."""
        if self.requested:
            raise Preemption(self.name)

    def sleep(self, seconds: float) -> None:
        """Wait, for the Hub above all: a signal ends that even where it is held."""
        before, self._held = self._held, False
        try:
            self.check()
            time.sleep(seconds)
        finally:
            self._held = before

    def _arrived(self, number: int, _frame: FrameType | None) -> None:
        if self.requested and not self._held:
            return  # on the way out already: a second one must not end that
        person = number == signal.SIGINT and self._breakable
        if person and self.requested:
            self._held = False
        self.requested, self.name = True, signal.Signals(number).name
        if not self._held:
            raise Preemption(self.name)
        log.say(f"{self.name}: {self._why}{'; Ctrl-C again ends it at once' if person else ''}")
