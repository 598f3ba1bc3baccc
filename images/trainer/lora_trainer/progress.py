"""Progress for people who read a pod's log: one line per reading of the loss.

For programs, transformers' own KubeflowCallback, which adds itself, reports to KUBEFLOW_TRAINER_SERVER_URL.
"""

from __future__ import annotations

from typing import Any

from lora_trainer import log


def line(step: int, steps: int, reading: dict[str, float]) -> str:
    """Return the line for one reading."""
    parts = [f"step {step}/{steps}", f"loss {reading['loss']:.4f}"]
    if "learning_rate" in reading:
        parts.append(f"learning rate {reading['learning_rate']:.3g}")
    return ", ".join(parts)


def lines() -> Any:
    """Return the callback that writes them."""
    from transformers import TrainerCallback

    class Lines(TrainerCallback):  # type: ignore[misc]  # transformers comes without types
        def on_log(self, _args: Any, state: Any, _control: Any, *, logs: dict[str, float], **_: Any) -> None:
            if "loss" in logs:
                log.say(line(state.global_step, state.max_steps, logs))

    return Lines()
