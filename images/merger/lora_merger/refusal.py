"""How a merge ends other than well: one Refusal, whose kind is the exit code and whose sentence says what to change."""

from __future__ import annotations

import errno
from enum import IntEnum


class ExitCode(IntEnum):
    """Exit codes of `lora-merge`, after sysexits.h where it has one. From 74 on, the same command may succeed later."""

    OK = 0
    FAILED = 1
    """Anything that has no code of its own; the traceback is on stderr."""
    USAGE = 2
    NOT_MERGEABLE = 65
    """The adapter or the base is of a kind that can't be merged exactly, or is damaged."""
    NOT_FOUND = 66
    """A directory, a repository or a revision that is not there, or a file that this user may not read."""
    NOT_VERIFIED = 70
    """What was written is not what an independent computation gives; nothing was published."""
    OUTPUT_EXISTS = 73
    """OUT is there already, another merge is writing it, or this user may not write there."""
    INPUT_OUTPUT = 74
    """Reading or writing failed; what was finished is kept for the next run."""
    HUB_UNAVAILABLE = 75
    HUB_UNAUTHORIZED = 77
    NO_SPACE = 79
    """The disk, the quota or a file's allowed size; what was finished is kept for the next run."""
    INTERRUPTED = 130
    """SIGINT; SIGTERM is 143. What was finished is kept for the next run."""
    TERMINATED = 143


class Refusal(Exception):  # noqa: N818 - it is what the program says, not a defect of it
    """An end that the program foresees. The message names the file, tensor or field, and what to do."""

    def __init__(self, code: ExitCode, message: str) -> None:
        super().__init__(message)
        self.code = code


def not_mergeable(message: str) -> Refusal:
    """Return the refusal of an adapter or a base."""
    return Refusal(ExitCode.NOT_MERGEABLE, message)


_FULL = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the disk quota is used up",
    errno.EFBIG: "the file would be larger than this process may write",
}
_NOT_THERE = frozenset({errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ELOOP, errno.ENAMETOOLONG})
_NOT_ALLOWED = frozenset({errno.EACCES, errno.EPERM, errno.EROFS})


def unreadable(error: OSError, *, doing: str) -> Refusal:
    """Return what it comes to that base or adapter could not be read."""
    if error.errno in _NOT_THERE:
        return Refusal(ExitCode.NOT_FOUND, f"{_told(error, doing)}: correct the path, or fetch it again")
    if error.errno in _NOT_ALLOWED:
        return Refusal(ExitCode.NOT_FOUND, f"{_told(error, doing)}: let this user read it")
    return _failed(error, doing)


def unwritable(error: OSError, *, doing: str) -> Refusal:
    """Return what it comes to that the output could not be written."""
    full = _FULL.get(error.errno or 0)
    if full is not None:
        return Refusal(
            ExitCode.NO_SPACE, f"{doing}: {full}. Nothing was published; free some space and run it again to go on"
        )
    if error.errno in _NOT_ALLOWED:
        return Refusal(
            ExitCode.OUTPUT_EXISTS, f"{_told(error, doing)}: let this user write there, or choose another place"
        )
    return _failed(error, doing)


def no_place(error: OSError, *, doing: str) -> Refusal:
    """Return what it comes to that the output could not even be begun, in a directory that is there."""
    if error.errno == errno.ENOENT:
        # What a directory that the kernel makes up says: /proc.
        why = f"{_told(error, doing)}: nothing can be made there, choose another place"
        return Refusal(ExitCode.OUTPUT_EXISTS, why)
    return unwritable(error, doing=doing)


def _failed(error: OSError, doing: str) -> Refusal:
    return Refusal(ExitCode.INPUT_OUTPUT, f"{_told(error, doing)}. Nothing was published; run it again to go on")


def _told(error: OSError, doing: str) -> str:
    where = f" {error.filename}:" if isinstance(error.filename, str) else ""
    return f"{doing}:{where} {error.strerror or error}"
