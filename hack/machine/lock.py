"""Lock files: one process at a time fills the cache, installs a package, or starts a cluster."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from machine.progress import console


def meeting_place() -> Path:
    """Return this user's folder for what all processes of the machine agree on, whatever their TMPDIR is."""
    folder = Path("/tmp") / f"lora-operator-{os.getuid()}"  # noqa: S108 - its mode keeps others out
    folder.mkdir(mode=0o700, exist_ok=True)
    return folder


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
