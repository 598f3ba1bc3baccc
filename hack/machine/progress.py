"""Says what a long step is doing, how far it is and how long it took, on a terminal and in a log alike."""

import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

Item = TypeVar("Item")
LOG_EVERY_SECONDS = 30.0

console = Console(stderr=True, highlight=False)


@contextmanager
def step(what: str, *, estimate: str = "") -> Iterator[None]:
    """Show a step while it runs, with what it should take where that is long, then the time that it took."""
    began = time.monotonic()
    title = f"{what} (about {estimate})" if estimate else what
    with console.status(f"{title} ...") if console.is_terminal else _logged(title):
        yield
    console.print(f"  [green]done[/] {what} [dim]({time.monotonic() - began:.1f} s)[/]", soft_wrap=True)


@contextmanager
def _logged(title: str) -> Iterator[None]:
    """Say in a log that a step begins, and now and then that it still runs."""
    console.print(f"  {title} ...", soft_wrap=True)
    began = time.monotonic()
    ended = threading.Event()

    def beat() -> None:
        while not ended.wait(LOG_EVERY_SECONDS):
            console.print(f"  {title}: {time.monotonic() - began:.0f} s so far", soft_wrap=True)

    heart = threading.Thread(target=beat, daemon=True)
    heart.start()
    try:
        yield
    finally:
        ended.set()
        heart.join()


def counted(items: Iterable[Item], what: str, *, total: int) -> Iterator[Item]:
    """Pass items on while showing how many of them there were and how long the rest should take."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, TextColumn("left:"), TimeRemainingColumn(), console=console) as progress:
        bar = progress.add_task(what, total=total)
        began = last = time.monotonic()
        for number, item in enumerate(items, start=1):
            yield item
            progress.advance(bar)
            now = time.monotonic()
            if not console.is_terminal and now - last > LOG_EVERY_SECONDS:
                last, left = now, (now - began) / number * (total - number)
                console.print(f"  {what}: {number} of {total}, about {left:.0f} s left")
        progress.update(bar, completed=total)
