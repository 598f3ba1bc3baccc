"""The ways of lora-train that train nothing: `--check`, `--dry-run`, `--print-defaults`."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Callable
from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import Final

from lora_operator.protocol.training import Reason, Result
from lora_trainer import log, spec
from lora_trainer.result import Refusal, failed


class Look(StrEnum):
    """What is looked at."""

    CHECK = "check"
    DRY_RUN = "dry-run"
    PRINT_DEFAULTS = "print-defaults"


WORDS: Final = {
    Look.CHECK: "check all that needs no GPU",
    Look.DRY_RUN: "print what trl and peft would be given",
    Look.PRINT_DEFAULTS: "print every field that has a default",
}


def run(look: Look, *, path: Path, folder: Path, output: Path | None, settle: Callable[[], object]) -> Result | None:
    """Look, and return the Result; None where what is printed is all there is to say. `settle` comes first.

    `output` is None where nobody named one: a person who only checks needs no such folder.
    """
    try:
        settle()
        return _run(look, path=path, folder=folder, output=output)
    except Refusal as refusal:
        log.say(f"{refusal.reason}: {refusal}")
        return failed(refusal.reason, str(refusal))
    except Exception as error:  # noqa: BLE001 - as in a training: whatever it was, there is a result
        traceback.print_exc()
        return failed(Reason.TRAINING_FAILED, f"{type(error).__name__}: {error}")


def _run(look: Look, *, path: Path, folder: Path, output: Path | None) -> Result | None:
    from lora_trainer import check, hub, machine, showing

    if look is Look.PRINT_DEFAULTS:
        sys.stdout.write(showing.defaults())
        return None
    wanted = spec.read(path)
    device = machine.here()
    if look is Look.DRY_RUN:
        sys.stdout.write(showing.effective(wanted, device))
        return None
    patience = hub.patience_from_env()
    if hub.ENV_PATIENCE not in os.environ:
        patience = replace(patience, seconds=check.PATIENCE_SECONDS)
    question = check.Question(
        spec=wanted,
        identity=spec.identity_from_env(),
        folder=folder,
        output=output,
        patience=patience,
        machine=device,
    )
    return check.run(question, check.Report())
