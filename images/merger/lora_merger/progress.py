"""What a person sees: a bar with bytes a second on a terminal, a line now and then elsewhere. All on stderr."""

from __future__ import annotations

import os
import sys
import threading
import time
from contextlib import suppress
from typing import Final, TextIO

_BAR: Final = 24
_TERMINAL_SECONDS: Final = 0.2
_LOG_SECONDS: Final = 15.0


class Progress:
    """Hears how many bytes were written and says so, seldom."""

    def __init__(self, what: str, total: int, *, stream: TextIO | None = None) -> None:
        self._what, self._total = what, total
        self._stream = stream or sys.stderr
        self._terminal = self._stream.isatty()
        self._started = self._said = time.monotonic()
        self._done = 0
        self._lock = threading.Lock()

    def advance(self, count: int) -> None:
        """Hear of *count* more bytes."""
        with self._lock:
            self._done += count
            now = time.monotonic()
            if now - self._said >= (_TERMINAL_SECONDS if self._terminal else _LOG_SECONDS):
                self._said = now
                self._say(now)

    def end(self) -> None:
        """Say that it is done: all that the stage is about was written, whoever wrote it."""
        with self._lock:
            self._done = self._total
            self._say(time.monotonic())
            if self._terminal:
                self._stream.write("\n")

    def _say(self, now: float) -> None:
        text = line(self._what, self._done, self._total, now - self._started)
        # A merge does not fail because nobody can see how far it is.
        with suppress(OSError):
            if self._terminal:
                # A line that wraps could not be written over.
                columns = os.get_terminal_size(self._stream.fileno()).columns or len(text) + 1
                text = f"\r{text[: columns - 1]}\x1b[K"
            else:
                text += "\n"
            self._stream.write(text)
            self._stream.flush()


def line(what: str, done: int, total: int, seconds: float) -> str:
    """Return `merging [#####.....]  45 %  1.0 of 2.2 GB  410 MB/s  3 s left`."""
    part = min(1.0, done / total) if total else 1.0
    filled = int(part * _BAR)
    rate = done / seconds if seconds > 0 else 0.0
    left = f"  {duration((total - done) / rate)} left" if rate and done < total else ""
    bar = "#" * filled + "." * (_BAR - filled)
    return f"{what} [{bar}] {part:4.0%}  {size(done)} of {size(total)}  {size(rate)}/s{left}"


def size(count: float) -> str:
    """Return an amount of bytes for people."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if count >= 10 or unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"


def duration(seconds: float) -> str:
    """Return a time span for people."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
