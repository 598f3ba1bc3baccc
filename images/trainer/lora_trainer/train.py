"""The training itself: trl's trainer over the base on this machine, from the newest checkpoint on, and the adapter
saved as an engine wants it."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, Final

from lora_operator.adapter import WEIGHTS
from lora_operator.api.training_run import EvaluationSchedule, Keep
from lora_operator.protocol.training import GateVerdict, Reason
from lora_trainer import building, checkpoints, evaluating, keeping, log, progress, ranks, tokens
from lora_trainer.base import BaseModel
from lora_trainer.checkpoints import Checkpoint
from lora_trainer.data import Data
from lora_trainer.preemption import Preemption, Preemptions
from lora_trainer.ranks import World
from lora_trainer.result import Refusal
from lora_trainer.spec import TrainSpec, dtype_of

_CPU_ALLOCATOR: Final = "DefaultCPUAllocator: can't allocate memory"
LIBRARIES: Final = ("torch", "transformers", "peft", "trl")
METRICS: Final[Sequence[str]] = ("loss", "train_loss", "mean_token_accuracy", "num_tokens", "epoch", "train_runtime")


@dataclass(frozen=True, kw_only=True, slots=True)
class Run:
    """Where a training lies and who takes part in it."""

    output: Path
    checkpoints: Path
    """Of this very recipe: another one's are never mixed in."""
    preemptions: Preemptions
    world: World
    held_out: Any = None
    """The rows to evaluate on."""
    published: Callable[[], Path | None] = lambda: None
    """Brings the adapter that the gate measures against."""
    start: Path | None = None
    """The folder of an adapter to go on from."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Trained:
    """What came out: the adapter's folder holds adapter_config.json and adapter_model.safetensors."""

    folder: Path
    steps: int
    metrics: dict[str, str]
    libraries: dict[str, str]
    history: Sequence[dict[str, float]] = ()
    evaluation: dict[str, float] | None = None
    gate: GateVerdict | None = None
    resumed_from_step: int = 0


def run(spec: TrainSpec, *, base: BaseModel, dataset: Data, where: Run) -> Trained:
    """Train and save; an accelerator that is too small for it is told as such."""
    import torch

    try:
        return _run(spec, base=base, dataset=dataset, where=where)
    except (RuntimeError, MemoryError) as error:
        # The CPU's allocator has no exception of its own.
        if not isinstance(error, torch.OutOfMemoryError | MemoryError) and _CPU_ALLOCATOR not in str(error):
            raise
        words = next(iter(str(error).splitlines()), type(error).__name__)
        message = (
            "out of memory: lower training.perDeviceTrainBatchSize or training.maxLength (and raise "
            f"training.gradientAccumulationSteps), or ask for more in resources; {words}"
        )
        raise Refusal(Reason.OUT_OF_MEMORY, message) from error


def _run(spec: TrainSpec, *, base: BaseModel, dataset: Data, where: Run) -> Trained:
    resumed = _newest(spec, where)
    tokenizer = tokens.tokenizer(base)  # once: a large vocabulary takes seconds
    counted = tokens.count_in(spec, dataset, tokenizer)
    trainer = _trainer(spec, base=base, dataset=dataset, tokenizer=tokenizer, where=where)
    _agree(where.world)
    _make_way(spec, where, resumed)
    initial = building.keep_initial(spec, trainer.model, where.output) if where.world.first else None
    _watch(trainer, spec, where=where, resumed=resumed)
    if resumed is not None and resumed.seal.step >= resumed.seal.max_steps:
        state = _take_over(trainer, spec, resumed, first=where.world.first)
    else:
        state = _steps(trainer, spec, where=where, resumed=resumed)
    history = list(state.log_history)  # before what the gate compares with is measured
    measured: dict[str, float] | None = None
    verdict = None
    if spec.evaluation is not None:
        measured, verdict = evaluating.measure(trainer, spec.evaluation, published=where.published)
    folder = where.output / "adapter"
    if where.world.first:
        folder = building.save(trainer.model, folder, base=base, initial=initial)
    return Trained(
        folder=folder,
        steps=state.global_step,
        metrics=_metrics(history, measured or {}) | _peak() | counted.metrics(),
        libraries={name: metadata.version(name) for name in LIBRARIES},
        history=history,
        evaluation=measured,
        gate=verdict,
        resumed_from_step=resumed.seal.step if resumed is not None else 0,
    )


def _newest(spec: TrainSpec, where: Run) -> Checkpoint | None:
    """Return the checkpoint to go on from."""
    if spec.checkpoint is None:
        return None
    found = checkpoints.newest(where.checkpoints)
    if found is not None:
        log.say(f"going on from the checkpoint of step {found.seal.step} of {found.seal.max_steps}")
    elif checkpoints.of_others(where.checkpoints):
        log.say(f"beginning anew: the checkpoints in {where.checkpoints.parent} are of another recipe, base or data")
    return found


def _make_way(spec: TrainSpec, where: Run, resumed: Checkpoint | None) -> None:
    """Remove what lies behind the checkpoint to go on from: it would be mixed with what comes."""
    if spec.checkpoint is None:
        return
    keeping.together(where.world)  # nobody is still looking for the newest
    if where.world.first:
        checkpoints.discard_later(where.checkpoints, resumed.seal.step if resumed is not None else -1)


def _steps(trainer: Any, spec: TrainSpec, *, where: Run, resumed: Checkpoint | None) -> Any:
    """Take the steps. With checkpoints SIGTERM waits for the end of the step; without them there is nothing to save."""
    # Not by a second Ctrl-C where there are several processes: torchrun passes on one that each has heard already.
    alone = where.world.size == 1
    waiting = where.preemptions.held("the step is finished, and a checkpoint saved", breakable=alone)
    with waiting if spec.checkpoint is not None else contextlib.nullcontext():
        trainer.train(resume_from_checkpoint=str(resumed.folder) if resumed is not None else None)
    if spec.checkpoint is not None:
        where.preemptions.check()
    state = trainer.state
    if state.global_step < state.max_steps:
        # The loop can return early and look well: half an adapter is none.
        raise Preemption(f"the training stopped at step {state.global_step} of {state.max_steps}")
    return state


def _take_over(trainer: Any, spec: TrainSpec, resumed: Checkpoint, *, first: bool) -> Any:
    """Take the weights of a training whose last step was saved: resuming it would make one step too many."""
    from transformers import TrainerState
    from transformers.trainer import TRAINER_STATE_NAME

    _load_weights(trainer.model, resumed.folder)
    keeping.check_probe(resumed, keeping.probe(trainer))
    state = TrainerState.load_from_json(str(resumed.folder / TRAINER_STATE_NAME))
    state.is_world_process_zero = first  # it was saved by the one that is
    trainer.state = state
    keeping.make_up(trainer, resumed)
    if _keeps_best(spec) and state.best_model_checkpoint:
        _load_weights(trainer.model, resumed.folder.with_name(Path(state.best_model_checkpoint).name))
    return state


def _load_weights(model: Any, folder: Path) -> None:
    from peft import set_peft_model_state_dict
    from safetensors.torch import load_file

    set_peft_model_state_dict(model, load_file(folder / WEIGHTS))


def _keeps_best(spec: TrainSpec) -> bool:
    return spec.evaluation is not None and spec.evaluation.keep is Keep.BEST


def _agree(world: World) -> None:
    import torch

    initialised = torch.distributed.is_available() and torch.distributed.is_initialized()
    ranks.agree(world, initialised=initialised, size=torch.distributed.get_world_size() if initialised else 1)


def _trainer(spec: TrainSpec, *, base: BaseModel, dataset: Data, tokenizer: Any, where: Run) -> Any:
    import torch
    from transformers.trainer_callback import PrinterCallback

    accelerator = torch.cuda.is_available()
    dtype = dtype_of(spec, accelerator=accelerator)
    log.say(
        f"training on {'an accelerator' if accelerator else 'the CPU'} in {dtype}, {torch.get_num_threads()} threads"
        + (f", {where.world.size} processes" if where.world.size > 1 else "")
    )
    args = building.config(spec, output_dir=str(where.checkpoints), accelerator=accelerator)
    parts = building.Parts(
        args=args, tokenizer=tokenizer, rows=dataset.dataset, held_out=where.held_out, start=where.start
    )
    try:
        with building.blaming(spec):
            trainer = building.trainer(spec, base=base, parts=parts, accelerator=accelerator)
    except (RuntimeError, Refusal):
        tokens.check_marks(spec, dataset.dataset, tokenizer)  # trl asks for them in every row, and names none
        raise
    trainer.remove_callback(PrinterCallback)  # it prints to stdout, where the last line is the result
    return trainer


def _watch(trainer: Any, spec: TrainSpec, *, where: Run, resumed: Checkpoint | None) -> None:
    """Add what looks on: progress, and the keeping of checkpoints."""
    from transformers.integrations import KubeflowCallback

    reporter = trainer.pop_callback(KubeflowCallback)
    trainer.add_callback(progress.readings(bar=sys.stderr.isatty()))
    if reporter is not None:
        trainer.add_callback(reporter)  # after the readings: what they add to the metrics is reported too
    evaluation = spec.evaluation
    if spec.checkpoint is None and not _keeps_best(spec):
        return
    plan = keeping.Plan(
        root=where.checkpoints,
        interval_seconds=spec.checkpoint.interval_seconds if spec.checkpoint is not None else None,
        keep=spec.checkpoint.keep if spec.checkpoint is not None else 1,
        by_epoch=evaluation is not None and evaluation.schedule is EvaluationSchedule.EPOCH,
        resumed=resumed,
    )
    trainer.add_callback(keeping.keeper(plan, trainer, preemptions=where.preemptions, world=where.world))


def _metrics(history: Sequence[dict[str, float]], measured: dict[str, float]) -> dict[str, str]:
    """Return the last reading of each metric that is worth keeping, and the first loss to compare with."""
    found = {name: reading[name] for reading in history for name in METRICS if name in reading}
    losses = [reading["loss"] for reading in history if "loss" in reading]
    if losses:
        found["first_loss"] = losses[0]
    found |= {name: value for name, value in measured.items() if name in evaluating.KEPT}
    return {name: f"{value:.6g}" for name, value in found.items()}


def _peak() -> dict[str, str]:
    return {"peak_memory_bytes": str(progress.accelerator_memory()["peakBytes"])}
