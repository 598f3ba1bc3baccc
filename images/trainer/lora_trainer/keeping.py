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


@dataclass(kw_only=True)
class Keeping:
    """What was saved so far, and what is to be saved next. Each method is called by all processes alike."""

    plan: Plan
    trainer: Any
    preemptions: Preemptions
    world: World
    clock: Callable[[], float] = time.monotonic
    stopping: bool = False
    deferred: bool = False
    """Due, but only after the evaluation that ends this epoch: a training that resumes there would pass over it."""

    def __post_init__(self) -> None:
        """Begin with what this attempt goes on from."""
        resumed = self.plan.resumed
        self.saved_at, self.saved_step = self.clock(), resumed.seal.step if resumed is not None else None

    def begin(self) -> None:
        """Hold a resumed training to its checkpoint."""
        resumed = self.plan.resumed
        if resumed is None:
            return
        if self.world.first:
            check_probe(resumed, probe(self.trainer))
        make_up(self.trainer, resumed)

    def due(self, state: Any) -> bool:
        """Tell, after a step, whether it is to be saved now."""
        if self.plan.interval_seconds is None:
            return False
        over = self.clock() - self.saved_at >= self.plan.interval_seconds
        over, self.stopping = agreed(self.trainer, self.world, over, self.preemptions.requested)
        due = over or self.stopping or state.global_step >= state.max_steps
        self.deferred = due and self.plan.by_epoch and ends_epoch(state.epoch, state.global_step, state.max_steps)
        return due and not self.deferred

    def look_up(self, state: Any) -> None:
        """End an evaluation of this training between two of its batches, if SIGTERM came: it can take hours."""
        if self.plan.interval_seconds is None or not self.trainer.is_in_train:
            return
        [self.stopping] = agreed(self.trainer, self.world, self.preemptions.requested)
        if not self.stopping:
            return
        if state.global_step != self.saved_step:
            self.trainer._save_checkpoint(self.trainer.model, None)  # noqa: SLF001 - no `control` is looked at here
            self._seal(state, evaluated=False)
        raise Preemption(self.preemptions.name)

    def saved(self, state: Any) -> None:
        """Make what was written complete, and end here if that was wanted."""
        self._seal(state, evaluated=True)
        if self.stopping and state.global_step < state.max_steps:
            raise Preemption(self.preemptions.name)

    def _seal(self, state: Any, *, evaluated: bool) -> None:
        step = state.global_step
        together(self.world)  # each process has written its share
        if self.world.first:
            content = Seal(step=step, max_steps=state.max_steps, probe=probe(self.trainer), evaluated=evaluated)
            checkpoints.seal(self.plan.root / f"checkpoint-{step}", content)
            checkpoints.prune(self.plan.root, keep=self.plan.keep, best=state.best_model_checkpoint)
            log.say(f"checkpoint of step {step}")
        together(self.world)
        self.saved_at, self.saved_step, self.deferred = self.clock(), step, False


def keeper(plan: Plan, trainer: Any, *, preemptions: Preemptions, world: World) -> Any:
    """Return the callback that keeps checkpoints of this trainer."""
    from transformers import TrainerCallback

    keeping = Keeping(plan=plan, trainer=trainer, preemptions=preemptions, world=world)

    class Keeper(TrainerCallback):  # type: ignore[misc]  # transformers comes without types
        def on_train_begin(self, _args: Any, _state: Any, _control: Any, **_: Any) -> None:
            keeping.begin()

        def on_step_end(self, _args: Any, state: Any, control: Any, **_: Any) -> None:
            control.should_save |= keeping.due(state)

        def on_epoch_end(self, _args: Any, _state: Any, control: Any, **_: Any) -> None:
            control.should_save |= keeping.deferred

        def on_prediction_step(self, _args: Any, state: Any, _control: Any, **_: Any) -> None:
            keeping.look_up(state)

        def on_save(self, _args: Any, state: Any, _control: Any, **_: Any) -> None:
            keeping.saved(state)

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


def make_up(trainer: Any, resumed: Checkpoint) -> None:
    """Evaluate what SIGTERM kept from being evaluated; the best weights so far may be the checkpoint's own."""
    if resumed.seal.evaluated:
        return
    log.say(f"the evaluation after step {resumed.seal.step} was interrupted: it is done again")
    if trainer._determine_best_metric(trainer.evaluate(), None):  # noqa: SLF001 - what its loop does after one
        trainer.state.best_model_checkpoint = str(resumed.folder)


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
