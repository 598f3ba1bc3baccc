"""The state between training and publishing: an adapter that is done, and the Result that goes with it.

It is what makes publishing a step of its own: `--publish-only`, or another attempt after the Hub was down, begins here.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from pydantic import ValidationError

from lora_operator.adapter import open_directory
from lora_operator.protocol.manifest import Wire
from lora_operator.protocol.training import Reason, Result
from lora_trainer import checkpoints, log
from lora_trainer.result import Refusal
from lora_trainer.spec import TrainSpec

RECORD: Final = "trained.json"
ADAPTER: Final = "adapter"
CHECKPOINTS: Final = "checkpoints"
NOT_OF_THE_RECIPE: Final = {
    "output",
    "checkpoint",
    "parallelism",
    "engine",
    "engine_ref",
    "resources",
    "node_selector",
    "tolerations",
    "service_account_name",
    "priority_class_name",
    "suspend",
    "active_deadline_seconds",
    "ttl_seconds_after_finished",
    "backoff_limit",
    "max_preemptions",
}
"""Fields that say where and how long a training runs, and where its result goes: not what comes out."""


class Record(Wire):
    """An adapter that is trained, judged and saved."""

    version: Literal[1] = 1
    fingerprint: str
    result: Result


@dataclass(frozen=True, kw_only=True, slots=True)
class Contents:
    """What the spec's names stood for: commits, or digests of what was read."""

    base: str
    dataset: str
    start: str | None = None


def fingerprint(spec: TrainSpec, contents: Contents, *, world_size: int, gate: bool) -> str:
    """Return 16 hexadecimal digits that stand for what is trained; with `gate`, for what is asked of it too.

    A checkpoint goes on under the same recipe alone; a gate that was changed judges the same weights again.
    """
    recipe = spec.model_dump(mode="json", by_alias=True, exclude_none=True, exclude=NOT_OF_THE_RECIPE)
    if not gate and "evaluation" in recipe:
        recipe["evaluation"].pop("gate", None)
    recipe |= {"baseRevision": contents.base, "datasetRevision": contents.dataset, "worldSize": world_size}
    recipe |= {} if contents.start is None else {"startRevision": contents.start}
    return hashlib.sha256(json.dumps(recipe, sort_keys=True).encode()).hexdigest()[:16]


def keep(output: Path, record: Record) -> None:
    """Write down that the adapter in the output folder is done."""
    checkpoints.write(output / RECORD, record)


def check_output(output: Path) -> None:
    """Refuse an output folder that is none, or can't be written to; nothing is left there."""
    there = next(folder for folder in (output.absolute(), *output.absolute().parents) if folder.exists())
    try:
        with tempfile.TemporaryDirectory(dir=there):
            pass
    except OSError as error:
        message = f"--output: {output} can't be written to: {error.strerror}"
        raise Refusal(Reason.CONFIG_INVALID, message) from error


def forget(output: Path) -> None:
    """Say that the adapter in the output folder is about to change."""
    (output / RECORD).unlink(missing_ok=True)


def find(output: Path, *, fingerprint: str | None = None) -> Record | None:
    """Return the adapter that is done: of this recipe, or of any, and still what it was when it was judged."""
    try:
        record = Record.model_validate_json((output / RECORD).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError, ValidationError) as error:
        log.say(f"{output / RECORD} can't be read ({type(error).__name__}): left aside")
        return None
    if fingerprint is not None and record.fingerprint != fingerprint:
        log.say(f"{output / ADAPTER} is of another recipe: it is trained anew")
        return None
    artifact, folder = record.result.artifact, output / ADAPTER
    if artifact is None or not folder.is_dir() or open_directory(folder).digest != artifact.digest:
        log.say(f"{output / ADAPTER} is not what was saved there: left aside")
        return None
    return record


def needed(output: Path) -> Record:
    """Return the adapter that is done, or refuse."""
    record = find(output)
    if record is None:
        message = f"--publish-only: {output} holds no trained adapter ({RECORD} and {ADAPTER}/); run without the option"
        raise Refusal(Reason.CONFIG_INVALID, message)
    return record
