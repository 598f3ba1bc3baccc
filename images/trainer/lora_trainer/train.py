"""The training itself: trl's trainer over the base on this machine, and the adapter saved as an engine wants it."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, Final

from lora_operator.protocol.training import Reason
from lora_trainer import building, data, log, recipe, tokens
from lora_trainer.base import BaseModel
from lora_trainer.data import Data
from lora_trainer.progress import lines
from lora_trainer.result import Preemption, Refusal
from lora_trainer.spec import TrainSpec, dtype_of

LIBRARIES: Final = ("torch", "transformers", "peft", "trl")
METRICS: Final[Sequence[str]] = ("loss", "train_loss", "mean_token_accuracy", "num_tokens", "epoch", "train_runtime")


@dataclass(frozen=True, kw_only=True, slots=True)
class Trained:
    """What came out: the adapter's folder holds adapter_config.json and adapter_model.safetensors."""

    folder: Path
    steps: int
    metrics: dict[str, str]
    libraries: dict[str, str]


def run(spec: TrainSpec, *, base: BaseModel, dataset: Data, output: Path, start: Path | None = None) -> Trained:
    """Train and save; an accelerator that is too small for it is told as such."""
    import torch

    try:
        return _run(spec, base=base, dataset=dataset, output=output, start=start)
    except (torch.OutOfMemoryError, MemoryError) as error:
        message = (
            "out of memory: lower training.perDeviceTrainBatchSize or training.maxLength (and raise "
            f"training.gradientAccumulationSteps), or ask for more in resources; {str(error).splitlines()[0]}"
        )
        raise Refusal(Reason.OUT_OF_MEMORY, message) from error


def _run(spec: TrainSpec, *, base: BaseModel, dataset: Data, output: Path, start: Path | None) -> Trained:
    trainer = _trainer(spec, base=base, dataset=dataset, output=output, start=start)
    initial = building.keep_initial(spec, trainer.model, output)
    trainer.train()
    state = trainer.state
    if state.global_step < state.max_steps:
        # The loop can return early and look well: half an adapter is none.
        raise Preemption(f"the training stopped at step {state.global_step} of {state.max_steps}")
    folder = building.save(trainer.model, output / "adapter", base=base, initial=initial)
    return Trained(
        folder=folder,
        steps=state.global_step,
        metrics=_metrics(state.log_history),
        libraries={name: metadata.version(name) for name in LIBRARIES},
    )


def _trainer(spec: TrainSpec, *, base: BaseModel, dataset: Data, output: Path, start: Path | None) -> Any:
    import torch
    from transformers.trainer_callback import PrinterCallback

    tokenizer = tokens.tokenizer(base)
    data.check_template(dataset, tokenizer, spec=spec)
    accelerator, bar = torch.cuda.is_available(), sys.stderr.isatty()
    dtype = dtype_of(spec, accelerator=accelerator)
    arguments = recipe.arguments(
        spec,
        output_dir=str(output / "state"),
        dtype=dtype,
        accelerator=accelerator,
        bar=bar,
    )
    log.say(
        f"training on {'an accelerator' if accelerator else 'the CPU'} in {dtype}, {torch.get_num_threads()} threads"
    )
    field = "training.extraArgs" if spec.training.extra_args else "training"
    try:
        args = building.config_class(spec)(**arguments)
        field = "training, lora and dataset"  # what the libraries say of parts that don't fit together
        parts = building.Parts(
            args=args, tokenizer=tokenizer, rows=dataset.dataset, start=start, callbacks=[] if bar else [lines()]
        )
        trainer = building.trainer(spec, base=base, parts=parts, accelerator=accelerator)
    except (ValueError, TypeError) as error:
        raise Refusal(Reason.CONFIG_INVALID, f"{field}: {error}") from error
    trainer.remove_callback(PrinterCallback)  # it prints to stdout, where the last line is the result
    return trainer


def _metrics(history: list[dict[str, float]]) -> dict[str, str]:
    """Return the last reading of each metric that is worth keeping, and the first loss to compare with."""
    found = {name: reading[name] for reading in history for name in METRICS if name in reading}
    losses = [reading["loss"] for reading in history if "loss" in reading]
    if losses:
        found["first_loss"] = losses[0]
    return {name: f"{value:.6g}" for name, value in found.items()}
