"""What a person sees while something long runs: what it is, how long it should take, that it is still going."""

import contextlib
import threading
import time
from collections.abc import Iterator

from rich.console import Console

console = Console(stderr=True, highlight=False, soft_wrap=True)
HEARTBEAT_SECONDS = 20.0


@contextlib.contextmanager
def step(title: str, *, estimate: str) -> Iterator[None]:
    """Announce a step with its estimate, show that it lives, and say how long it took."""
    console.print(f"{title} (about {estimate})")
    started = time.monotonic()
    ended = threading.Event()

    def beat() -> None:
        while not ended.wait(HEARTBEAT_SECONDS):
            console.print(f"  still at it after {time.monotonic() - started:.0f} s: {title}")

    heart = threading.Thread(target=beat, daemon=True)
    heart.start()
    try:
        yield
    finally:
        ended.set()
        heart.join()
    console.print(f"  done in {time.monotonic() - started:.0f} s")
