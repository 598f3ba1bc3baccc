"""Bytes from file to file: by reflink, by the kernel, or by reading and writing, whichever the file system has."""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

_FICLONE: Final = 0x40049409
_AT_ONCE: Final = 16 * 1024 * 1024
_BUFFER: Final = 1024 * 1024
# What the kernel says where it can't copy between these two files.
_CANNOT: Final = frozenset(
    {errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.EBADF, errno.EPERM, errno.ETXTBSY}
)


class ShortReadError(OSError):
    """A file ended before its header says it does: it was cut, or is being written."""


def reflink(source: int, target: int) -> bool:
    """Make *target* share all of *source*'s blocks until one of them is written; False where that can't be."""
    try:
        fcntl.ioctl(target, _FICLONE, source)
    except OSError:
        return False
    return True


@dataclass(frozen=True, slots=True, kw_only=True)
class Range:
    """Bytes of one file, and where they go in another."""

    start: int
    into: int
    count: int

    def after(self, done: int) -> Range:
        """Return what is left of it."""
        return Range(start=self.start + done, into=self.into + done, count=self.count - done)


def copy_range(source: int, target: int, wanted: Range, *, advance: Callable[[int], None]) -> None:
    """Copy a range; *advance* hears of each part and may raise to stop."""
    while wanted.count:
        try:
            moved = os.copy_file_range(source, target, min(wanted.count, _AT_ONCE), wanted.start, wanted.into)
        except OSError as error:
            if error.errno not in _CANNOT:
                raise
            moved = 0
        if moved == 0:
            # Not between these two files, or the file has ended, or its file system pretends so: reading tells.
            _by_hand(source, target, wanted, advance=advance)
            return
        wanted = wanted.after(moved)
        advance(moved)


def will_need(source: int, start: int, count: int) -> None:
    """Let the kernel begin to read a range; where the file system can't, it is read when it is read."""
    with suppress(OSError):
        os.posix_fadvise(source, start, count, os.POSIX_FADV_WILLNEED)


def is_same(source: int, target: int, wanted: Range, *, advance: Callable[[int], None]) -> bool:
    """Tell whether a range of one file is that of the other; *advance* hears of each part and may raise to stop."""
    while wanted.count:
        count = min(_BUFFER, wanted.count)
        if os.pread(source, count, wanted.start) != os.pread(target, count, wanted.into):
            return False
        wanted = wanted.after(count)
        advance(count)
    return True


def read_exactly(source: int, buffer: memoryview, start: int) -> None:
    """Fill *buffer* from *start* on."""
    done = 0
    while done < len(buffer):
        count = os.preadv(source, [buffer[done:]], start + done)
        if count == 0:
            raise ShortReadError(errno.EIO, "the file ends before its header says it does")
        done += count


def write_all(target: int, data: memoryview, start: int) -> None:
    """Write all of *data* from *start* on."""
    done = 0
    while done < len(data):
        done += os.pwrite(target, data[done:], start + done)


def _by_hand(source: int, target: int, wanted: Range, *, advance: Callable[[int], None]) -> None:
    buffer = memoryview(bytearray(min(_BUFFER, wanted.count)))
    while wanted.count:
        part = buffer[: min(_BUFFER, wanted.count)]
        read_exactly(source, part, wanted.start)
        write_all(target, part, wanted.into)
        wanted = wanted.after(len(part))
        advance(len(part))
