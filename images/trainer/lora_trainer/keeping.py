"""Saves checkpoints while training: by time, at SIGTERM, after the last step; and holds a resumed training to them.

transformers writes them; this says when, makes them complete, and removes what is too old. All processes decide alike:
a checkpoint that one of them alone began would never end.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from lora_operator.protocol.training import Reason
from lora_trainer import checkpoints, log
from lora_trainer.checkpoints import Checkpoint, Seal
from lora_trainer.preemption import Preemption, Preemptions
from lora_trainer.ranks import World
from lora_trainer.result import Refusal

PROBED_TOKENS: Final = 256
TOLERANCE: Final = 0.02
"""Of the loss on the fixed row: what another machine or library may make of the same weights, and no other weights."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """When checkpoints are saved, and where."""

    root: Path
    interval_seconds: float | None
    """None: only the best ones, for the end of this very attempt."""
    keep: int
    by_epoch: bool
    """There is an evaluation after each epoch, which a checkpoint of the epoch's last step must come after."""
    resumed: Checkpoint | None = None
    """What this attempt goes on from."""


def keeper(
    plan: Plan,
    trainer: Any,
    *,
    preemptions: Preemptions,
    world: World,
    clock: Callable[[], float] = time.monotonic,
) -> Any:
    """Return the callback that keeps checkpoints of this trainer."""
    from transformers import TrainerCallback

    class Keeper(TrainerCallback):  # type: ignore[misc]  # transformers comes without types
        def __init__(self) -> None:
            self.saved_at, self.stopping, self.deferred = clock(), False, False

        def on_train_begin(self, _args: Any, _state: Any, _control: Any, **_: Any) -> None:
            if plan.resumed is not None and world.first:
                check_probe(plan.resumed, probe(trainer))

        def on_step_end(self, _args: Any, state: Any, control: Any, **_: Any) -> None:
            if plan.interval_seconds is None:
                return
            over = clock() - self.saved_at >= plan.interval_seconds
            over, self.stopping = agreed(trainer, world, over, preemptions.requested)
            due = over or self.stopping or state.global_step >= state.max_steps
            # What is evaluated after the epoch would be passed over by a training that resumes there.
            self.deferred = due and plan.by_epoch and ends_epoch(state.epoch, state.global_step, state.max_steps)
            control.should_save |= due and not self.deferred

        def on_epoch_end(self, _args: Any, _state: Any, control: Any, **_: Any) -> None:
            control.should_save |= self.deferred

        def on_save(self, args: Any, state: Any, _control: Any, **_: Any) -> None:
            folder = Path(args.output_dir) / f"checkpoint-{state.global_step}"
            together(world)  # each process has written its share
            if world.first:
                content = Seal(step=state.global_step, max_steps=state.max_steps, probe=probe(trainer))
                checkpoints.seal(folder, content)
                checkpoints.prune(plan.root, keep=plan.keep, best=state.best_model_checkpoint)
                log.say(f"checkpoint of step {state.global_step}")
            together(world)
            self.saved_at, self.deferred = clock(), False
            if self.stopping and state.global_step < state.max_steps:
                raise Preemption("SIGTERM")

    return Keeper()


def ends_epoch(epoch: float, step: int, max_steps: int) -> bool:
    """Tell whether this was the last step of an epoch, or of the training, which ends its epoch."""
    return step >= max_steps or math.isclose(epoch, round(epoch), abs_tol=1e-9)


def check_probe(resumed: Checkpoint, found: float) -> None:
    """Refuse to go on with weights that are not the checkpoint's: peft has been known to start from random ones."""
    recorded, step = resumed.seal.probe, resumed.seal.step
    if recorded is None:
        return
    if not math.isclose(found, recorded, rel_tol=TOLERANCE, abs_tol=TOLERANCE):
        raise Refusal(
            Reason.TRAINING_FAILED,
            f"resumed from the checkpoint of step {step}, but the loss on its fixed row is {found:.4f} where "
            f"{recorded:.4f} was recorded: these are other weights; remove {resumed.folder} to train without it",
        )
    log.say(f"resumed from step {step}: the loss on its fixed row is {found:.4f}, as recorded")


def probe(trainer: Any) -> float:
    """Return the loss on the first row of the data set, without dropout and without a trace in the trainer."""
    import torch

    model, row = trainer.model, trainer.data_collator([trainer.train_dataset[0]])
    given = [name for name in ("input_ids", "attention_mask") if name in row]
    # A few tokens: without trl's fused head the logits of a long row can take more memory than the training.
    training, inputs = model.training, {name: row[name][:, :PROBED_TOKENS].to(model.device) for name in given}
    model.eval()
    try:
        with torch.no_grad():
            return float(model(**inputs, labels=inputs["input_ids"]).loss)
    finally:
        model.train(training)


def agreed(trainer: Any, world: World, *mine: bool) -> list[bool]:
    """Return, for each question, whether any of the processes says yes."""
    if world.size == 1:
        return list(mine)
    import torch

    votes = torch.tensor([float(one) for one in mine], device=trainer.args.device)
    torch.distributed.all_reduce(votes, op=torch.distributed.ReduceOp.MAX)
    return [bool(vote) for vote in votes.tolist()]


def together(world: World) -> None:
    """Wait for all processes."""
    if world.size > 1:
        import torch

        torch.distributed.barrier()
