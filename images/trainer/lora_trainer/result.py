"""How an attempt ends: a Refusal on the way, or not, and one Result at the end.

The Result is the container's termination message and the last line of stdout; its reason decides the exit code.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from lora_operator.protocol.training import TERMINATION_MESSAGE_LIMIT, ExitCode, Reason, Result

EXIT_CODES: Final[Mapping[Reason, ExitCode]] = {
    Reason.PUBLISHED: ExitCode.OK,
    Reason.TRAINED: ExitCode.OK,
    Reason.CHECKED: ExitCode.OK,
    Reason.CONFIG_INVALID: ExitCode.CONFIG_INVALID,
    Reason.DATASET_INVALID: ExitCode.DATASET_INVALID,
    Reason.BASE_MODEL_UNAVAILABLE: ExitCode.MODEL_UNAVAILABLE,
    Reason.NOT_SERVABLE: ExitCode.NOT_SERVABLE,
    Reason.HUB_UNAVAILABLE: ExitCode.HUB_UNAVAILABLE,
    Reason.HUB_UNAUTHORIZED: ExitCode.HUB_UNAUTHORIZED,
    Reason.OUT_OF_MEMORY: ExitCode.OUT_OF_MEMORY,
    Reason.PREEMPTED: ExitCode.PREEMPTED,
    Reason.GATE_FAILED: ExitCode.GATE_FAILED,
    Reason.TRAINING_FAILED: ExitCode.FAILED,
}
MESSAGE_LIMIT: Final = 1024


class Refusal(Exception):  # noqa: N818 - it is what the program says, not a defect of it
    """An end that the program foresees. The message names the field and what to change."""

    def __init__(self, reason: Reason, message: str) -> None:
        super().__init__(message)
        self.reason = reason


def failed(reason: Reason, message: str, *, checkpoint_step: int | None = None) -> Result:
    """Return the Result of an attempt that published nothing, and the step from which another goes on."""
    return Result(reason=reason, message=_cut(message), checkpoint_step=checkpoint_step)


def exit_code(result: Result) -> ExitCode:
    """Return the exit code: a preemption that lost everything is a failure like others, and counts as one."""
    if result.reason is Reason.PREEMPTED and result.checkpoint_step is None:
        return ExitCode.FAILED
    return EXIT_CODES[result.reason]


def termination_message(result: Result) -> str:
    """Return the Result as JSON within what kubelet keeps of it: metrics go first, then the message's end."""
    text = _json(result)
    if _too_long(text):
        result = result.model_copy(update={"metrics": {}})
        text = _json(result)
    while _too_long(text):
        result = result.model_copy(update={"message": _cut(result.message, limit=len(result.message) // 2)})
        text = _json(result)
    return text


def leave(result: Result, *, path: Path) -> ExitCode:
    """Write the Result where the operator reads it and to stdout, and return the exit code.

    kubelet makes the file; where it is missing, nobody reads it, and the program is run by hand.
    """
    text = termination_message(result)
    if path.exists():
        path.write_text(text, encoding="utf-8")
    sys.stdout.write(text + "\n")
    sys.stdout.flush()
    return exit_code(result)


def _json(result: Result) -> str:
    return result.model_dump_json(by_alias=True, exclude_none=True)


def _too_long(text: str) -> bool:
    return len(text.encode()) > TERMINATION_MESSAGE_LIMIT


def _cut(message: str, *, limit: int = MESSAGE_LIMIT) -> str:
    return message if len(message) <= limit else message[: max(limit - 1, 0)] + "…"
