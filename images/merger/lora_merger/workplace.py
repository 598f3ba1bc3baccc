"""The directory beside OUT in which a merge is made: locked, resumed by digest, and renamed to OUT when it is whole.

    .OUT.lora-merge/lock        held while a merge runs
    .OUT.lora-merge/journal     what is being made; then one line for each finished shard
    .OUT.lora-merge/model/      becomes OUT

A line is written after its shard is on disk. Whatever has no line, or is not what its line says, is made anew.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import shutil
import stat
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from lora_merger.described import Finished
from lora_merger.plan import Plan
from lora_merger.refusal import ExitCode, Refusal, no_place, unwritable
from lora_merger.resuming import Resuming
from lora_merger.transfer import Range, copy_range

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_NEW_FILE = os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
# What the kernel says where OUT is there.
_APPEARED = frozenset({errno.EEXIST, errno.ENOTEMPTY, errno.ENOTDIR, errno.EISDIR})


@dataclass(frozen=True, slots=True)
class Workplace:
    """One merge's place. Everything in it is ours, and survives a kill at any moment."""

    out: Path

    @property
    def folder(self) -> Path:
        """The directory beside OUT."""
        return self.out.with_name(f".{self.out.name}.lora-merge")

    @property
    def model(self) -> Path:
        """What becomes OUT."""
        return self.folder / "model"

    @property
    def _journal(self) -> Path:
        return self.folder / "journal"

    def take_up(self, fingerprint: Mapping[str, object], plan: Plan, resuming: Resuming) -> dict[str, Finished]:
        """Return what an earlier run has finished of the same merge; of another one nothing is kept."""
        told = _told(self._journal)
        # Through JSON, as the journal's: a tuple is a list there.
        if not told or told[0] != json.loads(json.dumps(fingerprint)):
            shutil.rmtree(self.model)
            self.model.mkdir()
            self._write([fingerprint])
            return {}
        kept = {}
        shards = {shard.name: shard for shard in plan.shards}
        for line in told[1:]:
            finished = _finished(line)
            shard = shards.get(finished.name) if finished is not None else None
            if finished is not None and shard is not None and resuming.is_whole(shard, finished):
                kept[finished.name] = finished
        # A torn last line would spoil the next one.
        self._write([fingerprint, *(asdict(finished) for finished in kept.values())])
        return kept

    def bytes_there(self) -> int:
        """Return how much of the model lies here, whole or not."""
        return sum(entry.stat(follow_symlinks=False).st_size for entry in os.scandir(self.model))

    def note(self, finished: Finished) -> None:
        """Remember a shard that is on disk."""
        _sync_folder(self.model)
        with self._journal.open("ab") as journal:
            journal.write(_line(asdict(finished)))
            journal.flush()
            os.fsync(journal.fileno())

    def forget(self) -> None:
        """Let the next run keep nothing of this one."""
        self._write([])

    def give_up(self) -> None:
        """Remove it all: it would be as large as the model, and no run could go on from it."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def keep_only(self, names: Collection[str]) -> None:
        """Remove what an earlier run has put here and this one will not: the base may have lost a file since."""
        for path in self.model.iterdir():
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            elif path.name not in names:
                path.unlink()

    def put(self, name: str, data: bytes) -> None:
        """Write a small file of the model, and force it to disk."""
        with os.fdopen(os.open(self.model / name, _NEW_FILE, 0o666), "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())

    def carry(self, source: Path) -> None:
        """Copy a file of the base, of any size, and force it to disk."""
        with source.open("rb") as theirs, os.fdopen(os.open(self.model / source.name, _NEW_FILE, 0o666), "wb") as ours:
            everything = Range(start=0, into=0, count=os.fstat(theirs.fileno()).st_size)
            copy_range(theirs.fileno(), ours.fileno(), everything, advance=lambda _: None)
            os.fsync(ours.fileno())

    def publish(self) -> None:
        """Let OUT appear, whole; then tidy up."""
        _sync_folder(self.model)
        try:
            self.model.rename(self.out)
        except OSError as error:
            if error.errno in _APPEARED:
                raise Refusal(
                    ExitCode.OUTPUT_EXISTS, f"{self.out} appeared while the merge ran ({error.strerror}): move it away"
                ) from error
            raise unwritable(error, doing=f"publishing {self.out}") from error
        _sync_folder(self.out.parent)
        self.give_up()

    def _write(self, lines: list[Mapping[str, object]]) -> None:
        fresh = self._journal.with_name("journal.new")
        with os.fdopen(os.open(fresh, _NEW_FILE, 0o666), "wb") as journal:
            journal.write(b"".join(_line(line) for line in lines))
            journal.flush()
            os.fsync(journal.fileno())
        fresh.replace(self._journal)
        _sync_folder(self.folder)


@contextmanager
def workplace(out: Path) -> Iterator[Workplace]:
    """Hold the workplace beside *out*; refuse where OUT is there, or another merge holds it."""
    refuse_if_there(out)
    place = Workplace(out)
    # Until it is OUT, nobody else looks into it, nor puts anything there.
    _own_folder(place.folder, mode=0o700)
    lock = os.open(place.folder / "lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise Refusal(ExitCode.OUTPUT_EXISTS, f"another merge is writing {out}: let it end") from error
        # It may have been published and tidied up between the look and the lock.
        refuse_if_there(out)
        _own_folder(place.model, mode=0o777)
        yield place
    finally:
        os.close(lock)


def refuse_if_there(out: Path) -> None:
    """Refuse where OUT is there: a merge never changes what somebody may be using."""
    if out.exists() or out.is_symlink():
        raise Refusal(ExitCode.OUTPUT_EXISTS, f"{out} is there already: remove it, or choose another place")
    if not out.parent.is_dir():
        raise Refusal(ExitCode.NOT_FOUND, f"{out.parent} is no directory")


def _own_folder(folder: Path, *, mode: int) -> None:
    """Make a folder, or make sure that one which is there is ours alone: its content is going to be believed."""
    try:
        folder.mkdir(mode=mode, exist_ok=True)
        descriptor = os.open(folder, _FOLDER)
    except OSError as error:
        if error.errno not in {errno.EEXIST, errno.ENOTDIR, errno.ELOOP}:
            raise no_place(error, doing=f"making {folder}") from error
        raise _not_ours(folder, "it is no directory") from error
    try:
        facts = os.fstat(descriptor)
    finally:
        os.close(descriptor)
    if facts.st_uid != os.geteuid():
        raise _not_ours(folder, f"it belongs to user {facts.st_uid}")
    others = stat.S_IWGRP | stat.S_IWOTH
    if mode & others == 0 and facts.st_mode & others:
        raise _not_ours(folder, "others may write into it")


def _not_ours(folder: Path, why: str) -> Refusal:
    return Refusal(
        ExitCode.OUTPUT_EXISTS,
        f"{folder} was not left by a merge of this user ({why}): remove it, or choose another OUT",
    )


def _told(journal: Path) -> list[dict[str, object]]:
    try:
        lines = journal.read_bytes().split(b"\n")
    except FileNotFoundError:
        return []
    told: list[dict[str, object]] = []
    # What follows the last line's end was torn by a kill.
    for line in lines[:-1]:
        try:
            value = json.loads(line)
        except ValueError:
            break
        if not isinstance(value, dict):
            break
        told.append(value)
    return told


def _finished(line: Mapping[str, object]) -> Finished | None:
    match line:
        case {"name": str(name), "size": int(size), "changes": str(changes), "source_sha256": str(source)}:
            return Finished(name=name, size=size, changes=changes, source_sha256=source)
        case _:
            return None


def _line(value: Mapping[str, object]) -> bytes:
    return json.dumps(value, sort_keys=True).encode() + b"\n"


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
