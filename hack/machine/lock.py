"""Lock files: one process at a time fills the cache, installs a package, or starts a cluster."""

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from machine.progress import console


@contextmanager
def held(file: Path) -> Iterator[None]:
    """Hold a lock file, waiting for it aloud; the kernel lets it go when the process ends, however it ends."""
    with file.open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            console.print(f"waiting for another process, which holds {file}", soft_wrap=True)
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield
