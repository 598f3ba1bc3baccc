"""Reading an adapter from a directory that a stranger filled.

Opens regular files of that directory: no link out of it, no pipe (it would block for ever), no device, no pickle. A
snapshot in the Hub's cache is made of links into the same repository's blobs: those are followed. Beside that, it reads
of the base what the caller names.
Raises OSError where the directory itself can't be read; everything about its content is a finding.
"""

import os
import re
import stat
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, Literal

from .base import Stored
from .config import CONFIG_LIMIT
from .files import Adapter, FileFacts, check_digest, report_header
from .findings import Code, Findings
from .header import Header, HeaderError, read_header
from .names import CONFIG, INDEX, PICKLES, stray_weights, weights_files
from .shard_index import INDEX_LIMIT
from .tensors import copied_module

# How huggingface_hub lays out its cache: each file of a snapshot is a link to a blob, called by its hash.
_SNAPSHOT = re.compile(r"/models--[^/]+/snapshots/[0-9a-f]{40}\Z")
_BLOB = re.compile(r"\.\./\.\./blobs/(?:[0-9a-f]{40}|[0-9a-f]{64})")


def open_directory(
    path: str | Path,
    *,
    level: Literal["header", "full"] = "full",
    expected: Mapping[str, str] | None = None,
    stored: Mapping[str, Stored] | None = None,
    progress: Callable[[int], None] | None = None,
) -> Adapter:
    """Read the adapter at *path*; at level `full` every byte, compared with the *expected* sha256 of each file.

    Copies of the base's embeddings are compared with its own, which are *stored* as `Base.stored` says. *progress*
    hears of bytes as they are read.
    """
    folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with _blobs_of(path, folder) as blobs, os.scandir(folder) as entries:
            reader = _Reader(folder, blobs, level, expected or {}, stored or {}, progress)
            names = [entry.name for entry in entries]
            for name in weights_files(names):
                reader.read(name)
        for name in {*PICKLES, *stray_weights(names)}.intersection(names):
            reader.files[name] = FileFacts(os.stat(name, dir_fd=folder, follow_symlinks=False).st_size)
    finally:
        os.close(folder)
    return Adapter(
        level=level,
        config_bytes=reader.config_bytes,
        files=reader.files,
        headers=reader.headers,
        magnitudes=reader.magnitudes,
        copies=reader.copies,
        problems=reader.findings.all(),
        index_bytes=reader.index_bytes,
    )


@dataclass(slots=True)
class _Reader:
    folder: int
    blobs: int | None
    level: str
    expected: Mapping[str, str]
    stored: Mapping[str, Stored]
    progress: Callable[[int], None] | None
    config_bytes: bytes | None = None
    index_bytes: bytes | None = None
    files: dict[str, FileFacts] = field(default_factory=dict)
    headers: dict[str, Header] = field(default_factory=dict)
    magnitudes: dict[str, float] = field(default_factory=dict)
    copies: dict[str, bool] = field(default_factory=dict)
    findings: Findings = field(default_factory=Findings)

    def read(self, name: str) -> None:
        """Read one file as far as the level asks, and report what is wrong with it."""
        with _open_regular(self.folder, self.blobs, name) as file:
            if file is None:
                self.findings.error(
                    Code.NOT_A_REGULAR_FILE,
                    name,
                    found="no regular file of this directory",
                    expected="a regular file, or a link to one beside it or in the Hub's own cache",
                    fix="replace it by a copy of the file itself (hf download with --local-dir makes copies)",
                )
                return
            size = os.fstat(file.fileno()).st_size
            if name == CONFIG:
                # One byte more than is allowed: the config's own rule then refuses it by its size.
                self.config_bytes = file.read(CONFIG_LIMIT + 1)
            elif name == INDEX:
                self.index_bytes = file.read(INDEX_LIMIT + 1)
            elif name.endswith(".safetensors"):
                self._read_header(file, name, size)
            self.files[name] = FileFacts(size, self._read_whole(file, name, size))

    def _read_header(self, file: BinaryIO, name: str, size: int) -> None:
        try:
            self.headers[name] = read_header(file, size)
        except HeaderError as error:
            report_header(name, error, self.findings)

    def _read_whole(self, file: BinaryIO, name: str, size: int) -> str | None:
        if self.level != "full":
            return None
        # It brings numpy, most of what importing the library would cost, and headers can be judged without it.
        from .scan import scan  # noqa: PLC0415

        file.seek(0)
        result = scan(file, self.headers.get(name), size=size, progress=self.progress)
        if result.read != size:
            self.findings.error(
                Code.FILE_CHANGED,
                name,
                found="another length at the end of reading",
                expected=f"{size} bytes",
                fix="inspect a copy that nobody writes to",
            )
        self.magnitudes.update(result.magnitudes)
        check_digest(name, result.sha256, self.expected.get(name), self.findings)
        self._compare_copies(file, name)
        return result.sha256

    def _compare_copies(self, file: BinaryIO, name: str) -> None:
        """Compare copies of the base's embeddings with them; one that can't be stays out of `copies`."""
        header = self.headers.get(name)
        if not self.stored or header is None:
            return
        from .comparing import has_values_of  # noqa: PLC0415 - it brings numpy

        for tensor_name, tensor in header.tensors.items():
            module = copied_module(tensor_name)
            stored = self.stored.get(module) if module else None
            if stored is not None:
                with suppress(OSError, ValueError):
                    start = header.data_start + tensor.begin
                    self.copies[tensor_name] = has_values_of(file, start, tensor, stored)


@contextmanager
def _open_regular(folder: int, blobs: int | None, name: str) -> Iterator[BinaryIO | None]:
    """Open *name* if it is a regular file of *folder*, or a link to one in it or in *blobs*; yield None otherwise."""
    place: int | None = folder
    if stat.S_ISLNK(os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode):
        name = os.readlink(name, dir_fd=folder)
        if _BLOB.fullmatch(name):
            place, name = blobs, name.rpartition("/")[2]
    if place is None or "/" in name or name in ("", ".", "..") or not _is_regular(place, name):
        yield None
        return
    # Between the look and the open it may have become something else: open no link, wait for no pipe, look again.
    descriptor = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=place)
    with os.fdopen(descriptor, "rb") as file:
        yield file if stat.S_ISREG(os.fstat(descriptor).st_mode) else None


def _is_regular(folder: int, name: str) -> bool:
    """Tell whether *name*, which may be what a stranger's link says, is a regular file of *folder*."""
    try:
        return stat.S_ISREG(os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode)
    except OSError:
        return False


@contextmanager
def _blobs_of(path: str | Path, folder: int) -> Iterator[int | None]:
    """Open the directory of the Hub's cache that holds the files of the snapshot at *path*, if that is one."""
    blobs = None
    if _SNAPSHOT.search(os.path.realpath(path)):
        with suppress(OSError):
            blobs = os.open("../../blobs", os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)
    try:
        yield blobs
    finally:
        if blobs is not None:
            os.close(blobs)
