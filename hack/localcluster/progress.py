"""Says what a long step is doing and how long it took, on a terminal and in a log alike."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console

console = Console(stderr=True, highlight=False)


@contextmanager
def step(what: str) -> Iterator[None]:
    """Show a step while it runs, then its time."""
    began = time.monotonic()
    with console.status(f"{what} ..."):
        yield
    console.print(f"  [green]done[/] {what} [dim]({time.monotonic() - began:.1f} s)[/]")
