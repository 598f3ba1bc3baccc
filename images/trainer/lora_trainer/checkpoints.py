"""Checkpoints on disk: which are complete, which is the newest, and which may go. No torch here.

transformers writes a checkpoint file by file, and its own search takes the highest number, whole or not. Here a
checkpoint counts only with its seal: a file that is written last, by a rename, and has the digest of every other.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from pydantic import Field, ValidationError

from lora_operator.protocol.manifest import Wire
from lora_trainer import log
from lora_trainer.files import sha256

SEAL: Final = "complete.json"
_NAME: Final = re.compile(r"checkpoint-([0-9]+)")


class Seal(Wire):
    """What makes a checkpoint complete."""

    version: Literal[1] = 1
    step: int
    max_steps: int
    probe: float | None = None
    """The loss on a fixed row, which a resumed training must have again."""
    evaluated: bool = True
    """False: saved while its evaluation was under way, which a resumed training has to do again."""
    files: dict[str, str] = Field(default_factory=dict)
    """The sha256 of every other file."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Checkpoint:
    """A complete checkpoint."""

    folder: Path
    seal: Seal


def seal(folder: Path, content: Seal) -> None:
    """Make a checkpoint complete: every byte of it lies on the disk before the seal does."""
    files = {}
    for path in _files(folder):
        files[str(path.relative_to(folder))] = sha256(path)
        _sync(path)
    write(folder / SEAL, content.model_copy(update={"files": files}))


def newest(root: Path) -> Checkpoint | None:
    """Return the complete checkpoint with the highest step."""
    for folder in sorted(_folders(root), key=_step, reverse=True):
        content = _read(folder)
        if content is None:
            log.say(f"{folder.name} is not complete: left aside")
        elif (broken := _broken(folder, content)) is not None:
            log.say(f"{folder.name} is damaged ({broken} is not what was written): left aside")
        else:
            return Checkpoint(folder=folder, seal=content)
    return None


def of_others(root: Path) -> bool:
    """Tell whether another recipe has checkpoints beside this one's."""
    beside = root.parent.iterdir() if root.parent.is_dir() else iter(())
    return any(_folders(path) for path in beside if path != root)


def discard_later(root: Path, step: int) -> None:
    """Remove what lies behind `step`: it is not complete, and would be mixed with what is written there again."""
    for folder in _folders(root):
        if _step(folder) > step:
            shutil.rmtree(folder)


def prune(root: Path, *, keep: int, best: str | None) -> None:
    """Remove all but the newest complete checkpoints and the best one. Only called once the newest is complete."""
    sealed = sorted((folder for folder in _folders(root) if (folder / SEAL).is_file()), key=_step, reverse=True)
    for folder in sealed[keep:]:
        if best is None or folder.name != Path(best).name:
            # The seal first: a folder that is half removed must not look complete.
            (folder / SEAL).unlink()
            shutil.rmtree(folder)


def write(path: Path, content: Wire) -> None:
    """Write a value so that it is there as a whole or not at all."""
    partial = path.with_name(f".{path.name}.partial")
    partial.write_text(content.model_dump_json(by_alias=True, exclude_none=True, indent=2) + "\n", encoding="utf-8")
    _sync(partial)
    partial.replace(path)
    _sync(path.parent)


def _folders(root: Path) -> list[Path]:
    if not root.is_dir():
        return []
    return [path for path in root.iterdir() if path.is_dir() and _NAME.fullmatch(path.name)]


def _step(folder: Path) -> int:
    return int(folder.name.rpartition("-")[2])


def _files(folder: Path) -> Iterator[Path]:
    yield from sorted(path for path in folder.rglob("*") if path.is_file() and path.name != SEAL)


def _read(folder: Path) -> Seal | None:
    try:
        return Seal.model_validate_json((folder / SEAL).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, ValidationError):
        return None


def _broken(folder: Path, content: Seal) -> str | None:
    """Return the name of a file that is not what the seal says."""
    for name, digest in content.files.items():
        path = folder / name
        if not path.is_file() or sha256(path) != digest:
            return name
    return None


def _sync(path: Path) -> None:
    """Bring a file, or a folder's list of files, to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
