"""Content by its sha256: in a folder that outlives the server, or in memory.

A blob appears whole or not at all: it is written beside its place and renamed into it.
"""

import hashlib
import io
import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Protocol

CHUNK_BYTES = 1024 * 1024
INCOMING = ".incoming-"


class Ingest(Protocol):
    """A blob on its way in; `finish` names it, or refuses content that isn't what was announced."""

    def write(self, chunk: bytes) -> None: ...
    def finish(self, *, expected: str | None = None) -> str: ...
    def abort(self) -> None: ...


class Blobs(Protocol):
    def has(self, sha256: str) -> bool: ...
    def size(self, sha256: str) -> int: ...
    def read(self, sha256: str, *, start: int = 0, end: int | None = None) -> Iterator[bytes]: ...
    def ingest(self) -> Ingest: ...


class ContentMismatchError(ValueError):
    """The bytes that came don't have the sha256 that was announced for them."""


class MemoryBlobs:
    def __init__(self) -> None:
        self._content: dict[str, bytes] = {}

    def has(self, sha256: str) -> bool:
        return sha256 in self._content

    def size(self, sha256: str) -> int:
        return len(self._content[sha256])

    def read(self, sha256: str, *, start: int = 0, end: int | None = None) -> Iterator[bytes]:
        content = self._content[sha256]
        end = len(content) if end is None else end
        for at in range(start, end, CHUNK_BYTES):
            yield content[at : min(at + CHUNK_BYTES, end)]

    def ingest(self) -> Ingest:
        return _MemoryIngest(self._content)


class _MemoryIngest:
    def __init__(self, content: dict[str, bytes]) -> None:
        self._content = content
        self._buffer = io.BytesIO()

    def write(self, chunk: bytes) -> None:
        self._buffer.write(chunk)

    def finish(self, *, expected: str | None = None) -> str:
        content = self._buffer.getvalue()
        sha256 = _checked(hashlib.sha256(content).hexdigest(), expected)
        self._content[sha256] = content
        return sha256

    def abort(self) -> None:
        self._buffer.close()


class DiskBlobs:
    def __init__(self, root: Path) -> None:
        self._root = root
        root.mkdir(parents=True, exist_ok=True)
        for left_by_a_kill in root.glob(f"{INCOMING}*"):
            left_by_a_kill.unlink()

    def _path(self, sha256: str) -> Path:
        return self._root / sha256[:2] / sha256

    def has(self, sha256: str) -> bool:
        return self._path(sha256).is_file()

    def size(self, sha256: str) -> int:
        return self._path(sha256).stat().st_size

    def read(self, sha256: str, *, start: int = 0, end: int | None = None) -> Iterator[bytes]:
        with self._path(sha256).open("rb") as file:
            file.seek(start)
            left = (self.size(sha256) if end is None else end) - start
            while left > 0 and (chunk := file.read(min(CHUNK_BYTES, left))):
                left -= len(chunk)
                yield chunk

    def ingest(self) -> Ingest:
        handle, path = tempfile.mkstemp(dir=self._root, prefix=INCOMING)
        return _DiskIngest(os.fdopen(handle, "wb"), partial=Path(path), place=self._path)


class _DiskIngest:
    def __init__(self, file: IO[bytes], *, partial: Path, place: Callable[[str], Path]) -> None:
        self._file = file
        self._partial = partial
        self._place = place
        self._hash = hashlib.sha256()

    def write(self, chunk: bytes) -> None:
        self._hash.update(chunk)
        self._file.write(chunk)

    def finish(self, *, expected: str | None = None) -> str:
        try:
            sha256 = _checked(self._hash.hexdigest(), expected)
        except ContentMismatchError:
            self.abort()
            raise
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        self._place(sha256).parent.mkdir(exist_ok=True)
        self._partial.replace(self._place(sha256))
        return sha256

    def abort(self) -> None:
        self._file.close()
        self._partial.unlink(missing_ok=True)


def _checked(actual: str, expected: str | None) -> str:
    if expected is not None and actual != expected:
        raise ContentMismatchError(f"content is sha256 {actual}, announced was {expected}")
    return actual


def put(blobs: Blobs, content: bytes) -> str:
    """Keep bytes that are at hand already and return their sha256."""
    ingest = blobs.ingest()
    ingest.write(content)
    return ingest.finish()
