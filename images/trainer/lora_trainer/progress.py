"""Progress: a line of JSON on stdout for each reading, or a bar where a person looks on.

transformers' own KubeflowCallback reports to KUBEFLOW_TRAINER_SERVER_URL; what is read here goes along with its
metrics, under our own names. Losing any of it changes nothing.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

Memory = Mapping[str, int]
KEPT: Final = {"loss": "loss", "eval_loss": "evalLoss", "learning_rate": "learningRate", "epoch": "epoch"}
"""Readings of trl that are passed on, and our names for them."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Pace:
    """How far the training is, and how fast this attempt: a resumed one has not done the steps before its first."""

    step: int
    max_steps: int
    first: int
    seconds: float
    tokens: int

    @property
    def tokens_per_second(self) -> float | None:
        """Return None before there is anything to divide."""
        return self.tokens / self.seconds if self.seconds > 0 and self.tokens > 0 else None

    @property
    def remaining_seconds(self) -> float | None:
        """Return how long the steps to come take; None before one was taken."""
        taken = self.step - self.first
        return (self.max_steps - self.step) * self.seconds / taken if taken > 0 else None


def reading(logs: Mapping[str, Any], pace: Pace, *, memory: Memory, now: datetime) -> dict[str, Any]:
    """Return one reading, as it is printed."""
    found: dict[str, Any] = {"type": "progress", "time": now.isoformat(timespec="seconds")}
    found |= {"step": pace.step, "maxSteps": pace.max_steps}
    found |= {ours: _short(logs[theirs]) for theirs, ours in KEPT.items() if theirs in logs}
    if pace.tokens_per_second is not None:
        found["tokensPerSecond"] = _short(pace.tokens_per_second)
    if pace.remaining_seconds is not None:
        found["etaSeconds"] = round(pace.remaining_seconds)
    if memory:
        found["memory"] = dict(memory)
    return found


def metrics(found: Mapping[str, Any]) -> dict[str, float]:
    """Return what of a reading goes along with transformers' own metrics."""
    ours = {"tokens_per_second": found.get("tokensPerSecond"), "eta_seconds": found.get("etaSeconds")}
    ours |= {f"memory_{_snake(name)}": value for name, value in (found.get("memory") or {}).items()}
    return {name: value for name, value in ours.items() if value is not None}


def say(event: Mapping[str, Any]) -> None:
    """Print one line of JSON."""
    sys.stdout.write(json.dumps(event, allow_nan=False, separators=(",", ":")) + "\n")
    sys.stdout.flush()


def readings(*, bar: bool, clock: Callable[[], float] = time.monotonic) -> Any:
    """Return the callback that takes readings. It has to come before those that pass metrics on."""
    from transformers import TrainerCallback

    class Readings(TrainerCallback):  # type: ignore[misc]  # transformers comes without types
        def __init__(self) -> None:
            self.began, self.first, self.shown = clock(), 0, None
            self.tokens = 0  # trl counts them from the start of this process, not of the training

        def on_train_begin(self, _args: Any, state: Any, _control: Any, **_: Any) -> None:
            self.began, self.first = clock(), state.global_step
            if bar and state.is_world_process_zero:
                from tqdm.auto import tqdm

                self.shown = tqdm(total=state.max_steps, initial=state.global_step, unit="step", disable=False)

        def on_step_end(self, _args: Any, state: Any, _control: Any, **_: Any) -> None:
            if self.shown is not None:
                self.shown.update(state.global_step - self.shown.n)

        def on_log(self, _args: Any, state: Any, _control: Any, *, logs: dict[str, Any], **_: Any) -> None:
            if not state.is_world_process_zero or not ("loss" in logs or "eval_loss" in logs):
                return
            self.tokens = int(logs.get("num_tokens", self.tokens))
            pace = Pace(
                step=state.global_step,
                max_steps=state.max_steps,
                first=self.first,
                seconds=clock() - self.began,
                tokens=self.tokens,
            )
            found = reading(logs, pace, memory=accelerator_memory(), now=datetime.now(UTC))
            logs.update(metrics(found))
            if self.shown is not None:
                told = {name: found[name] for name in ("loss", "evalLoss", "learningRate") if name in found}
                self.shown.set_postfix(told)
            else:
                say(found)

        def on_train_end(self, _args: Any, _state: Any, _control: Any, **_: Any) -> None:
            if self.shown is not None:
                self.shown.close()

    return Readings()


def accelerator_memory() -> Memory:
    """Return what the accelerator's allocator holds; on a CPU, what the process does."""
    import torch

    if torch.cuda.is_available():
        return {
            "allocatedBytes": torch.cuda.memory_allocated(),
            "reservedBytes": torch.cuda.memory_reserved(),
            "peakBytes": torch.cuda.max_memory_allocated(),
        }
    import resource

    return {"peakBytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024}


def _short(value: Any) -> Any:
    """Return a number of 6 digits; what is no number at all has no place in JSON."""
    if isinstance(value, int | float):
        number = float(f"{value:.6g}")
        return number if number - number == 0 else str(number)
    return str(value)


def _snake(name: str) -> str:
    return "".join(f"_{letter.lower()}" if letter.isupper() else letter for letter in name)
