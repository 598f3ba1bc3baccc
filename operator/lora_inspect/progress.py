"""A bar on the terminal while much is read; nothing where nobody looks, or the read is over at once."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

# Read within a fraction of a second from a warm cache.
_WORTH_IT: Final = 64 * 1024 * 1024


@contextmanager
def bar(total: int) -> Iterator[Callable[[int], None] | None]:
    """Yield what to tell of each piece read, or None where there is nobody to show it to."""
    if total < _WORTH_IT or not sys.stderr.isatty():
        yield None
        return
    columns = (TextColumn("reading"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("reading", total=total)
        yield lambda count: progress.advance(task, count)
