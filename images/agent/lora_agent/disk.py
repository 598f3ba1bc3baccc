"""The adapters volume: what is published, what is reserved, and the moves between.

<volume>/<sha256 hex>/     one published adapter, immutable, readable by the engine's user
<volume>/.fetch/           downloads under way; emptied at start
<volume>/.trash/           on the way out; emptied at start
<volume>/.state/           the agent's memory and the shards it acted on last
"""

from __future__ import annotations

import os
import re
import shutil
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

_HEX: Final = re.compile(r"^[0-9a-f]{64}$")
DIGEST_PREFIX: Final = "sha256:"


class NoSpace(Exception):  # noqa: N818 - an answer, not an accident
    """The volume can't take these bytes; the text gives the figures."""


class Disk:
    """One adapters volume with a byte budget. Only this class writes adapters into it or takes them out."""

    def __init__(self, root: Path, *, budget: int) -> None:
        self._root = root
        self._budget = budget
        self._reserved = 0
        for place in (root / ".fetch", root / ".trash"):
            shutil.rmtree(place, ignore_errors=True)
            place.mkdir(mode=0o700, parents=True)
        self.state = root / ".state"
        self.state.mkdir(mode=0o700, exist_ok=True)
        self._published = {path.name: _size(path) for path in root.iterdir() if _HEX.match(path.name) and path.is_dir()}

    @property
    def published(self) -> frozenset[str]:
        """The adapters that are whole and verified, by the hex of their digest."""
        return frozenset(self._published)

    def path(self, digest_hex: str) -> Path:
        """Return where an adapter lies, or will lie."""
        return self._root / digest_hex

    def digest_at(self, path: str) -> str | None:
        """Return the digest hex of the adapter directory that a path is, None for any other path."""
        place = Path(path)
        return place.name if place.parent == self._root and _HEX.match(place.name) else None

    @contextmanager
    def reserve(self, size: int) -> Iterator[Path]:
        """Set bytes aside, give an empty directory to write them into, and clear up what is still there at the end."""
        taken = sum(self._published.values()) + self._reserved
        if taken + size > self._budget:
            raise NoSpace(
                f"needs {size} bytes; {taken} of the {self._budget} bytes of spec.agent.adaptersSize are taken: "
                f"raise it, or serve fewer adapters on this engine"
            )
        free = shutil.disk_usage(self._root).free
        if size > free - self._reserved:
            raise NoSpace(f"needs {size} bytes; the node's disk has {free - self._reserved} bytes left")
        self._reserved += size
        place = Path(tempfile.mkdtemp(dir=self._root / ".fetch"))
        try:
            yield place
        finally:
            self._reserved -= size
            shutil.rmtree(place, ignore_errors=True)

    def publish(self, place: Path, digest_hex: str) -> None:
        """Make a verified directory an adapter, at once and for good: readable by all, then renamed into place."""
        for file in place.iterdir():
            file.chmod(0o644)
        place.chmod(0o755)
        size = _size(place)
        place.rename(self.path(digest_hex))
        self._published[digest_hex] = size

    def hide(self, digest_hex: str) -> Path:
        """Take an adapter out of sight at once, on a full disk too; returns what is still to be deleted."""
        trash = self._root / ".trash" / f"{digest_hex}-{uuid.uuid4().hex}"
        self.path(digest_hex).rename(trash)
        del self._published[digest_hex]
        return trash


def hex_of(digest: str) -> str | None:
    """Return the hex of a digest `sha256:<hex>`, None where it isn't one."""
    digest_hex = digest.removeprefix(DIGEST_PREFIX)
    return digest_hex if _HEX.match(digest_hex) else None


def sync(directory: Path) -> None:
    """Wait until a directory's files are on the disk: after a crash of the node, published means verified still."""
    for path in (*directory.iterdir(), directory):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def write_whole(path: Path, text: str) -> None:
    """Write a small file so that a reader, or we after a crash, sees the old text or the new one; raises OSError."""
    descriptor, name = tempfile.mkstemp(dir=path.parent)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
        Path(name).replace(path)
    except BaseException:
        # Each try would leave one more on a disk that may be full.
        Path(name).unlink(missing_ok=True)
        raise


def _size(directory: Path) -> int:
    return sum(file.stat().st_size for file in directory.iterdir())
