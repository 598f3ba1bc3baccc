"""The directory beside OUT in which a merge is made: locked, resumed by digest, and renamed to OUT when it is whole.

    .OUT.lora-merge/lock        held while a merge runs
    .OUT.lora-merge/journal     what is being made; then one line for each finished shard
    .OUT.lora-merge/model/      becomes OUT

A line is written after its shard is on disk. Whatever has no line, or is not what its line says, is made anew.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from lora_merger.described import Finished
from lora_merger.finishing import file_digest
from lora_merger.plan import Plan
from lora_merger.refusal import ExitCode, Refusal
from lora_merger.stopping import Stop

# For what is not weights: config, tokenizer, card.
_BESIDE: Final = 64 * 1024 * 1024


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

    def take_up(self, fingerprint: Mapping[str, object], plan: Plan, stop: Stop) -> dict[str, Finished]:
        """Return what an earlier run has finished of the same merge; of another one nothing is kept."""
        told = _told(self._journal)
        if not told or told[0] != fingerprint:
            shutil.rmtree(self.model, ignore_errors=True)
            self.model.mkdir(exist_ok=True)
            self._write([fingerprint])
            return {}
        kept = {}
        sizes = {shard.name: shard.target_size for shard in plan.shards}
        for line in told[1:]:
            finished = _finished(line)
            if finished is not None and sizes.get(finished.name) == finished.size and self._is_whole(finished, stop):
                kept[finished.name] = finished
        # A torn last line would spoil the next one.
        self._write([fingerprint, *(asdict(finished) for finished in kept.values())])
        return kept

    def note(self, finished: Finished) -> None:
        """Remember a shard that is on disk."""
        _sync_folder(self.model)
        with self._journal.open("ab") as journal:
            journal.write(_line(asdict(finished)))
            journal.flush()
            os.fsync(journal.fileno())

    def refuse_if_too_full(self, needed: int) -> None:
        """Refuse where the disk has less than *needed* bytes, and room for the small files."""
        disk = os.statvfs(self.out.parent)
        free = disk.f_bavail * disk.f_frsize
        if free < needed + _BESIDE:
            raise Refusal(
                ExitCode.NO_SPACE,
                f"{self.out.parent} has {free:,} bytes free, and the merge still needs {needed + _BESIDE:,}: "
                "free some space, or choose another place",
            )

    def put(self, name: str, data: bytes) -> None:
        """Write a small file of the model, and force it to disk."""
        with (self.model / name).open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())

    def publish(self) -> None:
        """Let OUT appear, whole; then tidy up."""
        _sync_folder(self.model)
        try:
            self.model.rename(self.out)
        except OSError as error:
            raise Refusal(
                ExitCode.OUTPUT_EXISTS, f"{self.out} appeared while the merge ran ({error.strerror}): move it away"
            ) from error
        _sync_folder(self.out.parent)
        shutil.rmtree(self.folder, ignore_errors=True)

    def _is_whole(self, finished: Finished, stop: Stop) -> bool:
        with suppress(OSError):
            return file_digest(self.model / finished.name, stop) == finished.sha256
        return False

    def _write(self, lines: list[Mapping[str, object]]) -> None:
        fresh = self._journal.with_name("journal.new")
        with fresh.open("wb") as journal:
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
    place.folder.mkdir(exist_ok=True)
    lock = os.open(place.folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise Refusal(ExitCode.OUTPUT_EXISTS, f"another merge is writing {out}: let it end") from error
        # It may have been published and tidied up between the look and the lock.
        refuse_if_there(out)
        place.model.mkdir(exist_ok=True)
        yield place
    finally:
        os.close(lock)


def refuse_if_there(out: Path) -> None:
    """Refuse where OUT is there: a merge never changes what somebody may be using."""
    if out.exists() or out.is_symlink():
        raise Refusal(ExitCode.OUTPUT_EXISTS, f"{out} is there already: remove it, or choose another place")
    if not out.parent.is_dir():
        raise Refusal(ExitCode.NOT_FOUND, f"{out.parent} is no directory")


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
        case {"name": str(name), "size": int(size), "sha256": str(sha256), "source_sha256": str(source)}:
            return Finished(name=name, size=size, sha256=sha256, source_sha256=source)
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
