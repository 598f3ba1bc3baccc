"""The cache shared by all checkouts: directories named after the hash of what went into them.

Everything slow ends here: built once under a lock, in a directory of another name, and renamed when whole. What is
there is therefore complete, also after a kill at any point.
"""

import contextlib
import hashlib
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

from machine import lock


def root() -> Path:
    """Return the cache's directory, made if need be."""
    home = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    directory = Path(home) / "lora-operator"
    directory.mkdir(parents=True, exist_ok=True)
    return directory


def digest(*parts: str | bytes) -> str:
    """Return 12 hex digits that change with any part, and with where one part ends and the next begins."""
    whole = hashlib.sha256()
    for part in parts:
        data = part.encode() if isinstance(part, str) else part
        whole.update(len(data).to_bytes(8, "big") + data)
    return whole.hexdigest()[:12]


@contextlib.contextmanager
def locked(name: str) -> Iterator[None]:
    """Hold the lock of this name."""
    locks = root() / "locks"
    locks.mkdir(exist_ok=True)
    with lock.held(locks / name):
        yield


def build_once(name: str, build: Callable[[Path], None]) -> Path:
    """Return the cached entry `name`; if it is not there, `build` makes it at the path that it is given."""
    final = root() / name
    if not final.exists():
        with locked(name):
            if not final.exists():
                partial = root() / f"{name}.partial"
                discard(partial)
                build(partial)
                partial.rename(final)
    os.utime(final)  # when it was last asked for, which is what `keep_newest` goes by
    return final


def discard(path: Path) -> None:
    """Remove a file or a directory tree, if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def keep_newest(pattern: str, *, count: int) -> None:
    """Remove all but the `count` entries last asked for among those that match: old versions would fill the disk."""
    entries = sorted(root().glob(pattern), key=lambda entry: entry.stat().st_mtime, reverse=True)
    for entry in entries[count:]:
        discard(entry)
