"""What base and adapter are read from, and what is known of where it comes from."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol


class Files(Protocol):
    """A base's files, wherever they lie."""

    def names(self) -> Sequence[str]:
        """Return the names of the files at the top."""
        ...

    def size(self, name: str) -> int:
        """Return a file's size."""
        ...

    def read(self, name: str, start: int, stop: int) -> bytes:
        """Return the bytes from *start* to *stop*, fewer where the file ends."""
        ...


@dataclass(frozen=True, slots=True)
class LocalFiles:
    """A directory. Links are followed: the Hub's cache is made of them."""

    folder: Path

    def names(self) -> Sequence[str]:
        """Return the regular files at the top."""
        return sorted(entry.name for entry in os.scandir(self.folder) if entry.is_file())

    def size(self, name: str) -> int:
        """Return a file's size."""
        return (self.folder / name).stat().st_size

    def read(self, name: str, start: int, stop: int) -> bytes:
        """Return a part of a file."""
        with (self.folder / name).open("rb") as file:
            file.seek(start)
            return file.read(stop - start)


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """A base or an adapter: where its files are read from, and what is known of where it comes from."""

    name: str
    """The Hub's id, or the directory as it was given."""
    files: Files
    repo: str | None = None
    """The Hub's id, where it is known: of a directory, where that lies in the Hub's cache."""
    revision: str | None = None
    licence: str | None = None
    gated: str | None = None
    """How access is granted: "auto" or "manual"; "no" where anybody may; None where that is not known."""
    sha256: Mapping[str, str] = field(default_factory=dict)
    """What the Hub says of its large files."""

    @property
    def is_remote(self) -> bool:
        """Whether its files are still to be fetched."""
        return not isinstance(self.files, LocalFiles)
