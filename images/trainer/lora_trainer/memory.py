"""How much memory a training needs, and how much room on disk, by formulas that `docs/trainer.md` explains. Pure.

That of memory is an estimate for one process: good enough to tell 12 GiB from 40, not to tell 23 from 24.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from lora_operator.api.lora import CONVERTED
from lora_operator.api.training import Method, Optim
from lora_operator.api.training_run import Keep
from lora_operator.protocol.training import Reason
from lora_trainer.by_hand import TrainSpec
from lora_trainer.outline import Outline
from lora_trainer.result import Refusal

GIB: Final = 1 << 30
BYTES: Final = {"float32": 4, "bfloat16": 2}
BLOCK: Final = 64
"""Weights that share one scale in bitsandbytes' 4 bits; of the scales, 256 share one where they are quantised too."""
OPTIMIZER_STATES: Final = {
    Optim.ADAMW_TORCH_FUSED: 8.0,
    Optim.ADAMW_TORCH: 8.0,
    Optim.PAGED_ADAMW_32BIT: 8.0,
    Optim.ADAMW_8BIT: 2.0,
    Optim.PAGED_ADAMW_8BIT: 2.0,
    Optim.ADAFACTOR: 0.1,
    Optim.SGD: 0.0,
}
"""Bytes an adapter's parameter. Adafactor keeps rows and columns alone."""
TILE_TOKENS: Final = 4096
TILE_WORDS: Final = 32768
"""trl computes logits in tiles of so many tokens and words of the vocabulary."""
LIBRARIES: Final = {True: round(0.7 * GIB), False: GIB}
"""What CUDA's context, or Python with torch on a CPU, takes before anything is loaded."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Estimate:
    """Bytes, by what they are for."""

    weights: int
    adapter: int
    """Its parameters and their gradients."""
    optimizer: int
    activations: int
    libraries: int

    @property
    def total(self) -> int:
        """Return the sum."""
        return self.weights + self.adapter + self.optimizer + self.activations + self.libraries

    def __str__(self) -> str:
        """Say it in GiB."""
        parts = {
            "weights": self.weights,
            "adapter": self.adapter,
            "optimizer": self.optimizer,
            "activations": self.activations,
            "libraries": self.libraries,
        }
        return f"{gib(self.total)} (" + ", ".join(f"{name} {gib(value)}" for name, value in parts.items()) + ")"


def estimate(spec: TrainSpec, outline: Outline, *, dtype: str, longest: int, accelerator: bool) -> Estimate:
    """Return what one process needs. `longest` is the longest row in tokens, before it is cut."""
    training = spec.training
    rows = training.per_device_train_batch_size * (2 if spec.method is Method.DPO else 1)
    length = training.max_length if training.packing else min(training.max_length, longest)
    adapter = outline.adapter_parameters * _number(spec)
    return Estimate(
        weights=_weights(spec, outline, BYTES[dtype]),
        adapter=adapter * 2,
        optimizer=_states(spec, adapter),
        activations=_activations(outline, rows * length, BYTES[dtype], checkpointing=training.gradient_checkpointing),
        libraries=LIBRARIES[accelerator],
    )


def room(spec: TrainSpec, outline: Outline, *, start: int, tokenizer: int) -> int:
    """Return what lies in the output folder when it is fullest. `start` is the size of an adapter to go on from."""
    adapter = start or outline.adapter_parameters * _number(spec)
    converted = spec.lora.init_lora_weights in CONVERTED and spec.lora.init_from is None
    best = spec.evaluation is not None and spec.evaluation.keep is Keep.BEST
    kept = spec.checkpoint.keep if spec.checkpoint is not None else 1 if best else 0
    written = kept + best + 1 if kept else 0  # the next is complete before one is removed
    checkpoint = adapter + _states(spec, adapter) + tokenizer
    return adapter * (3 if converted else 1) + written * checkpoint  # converted: as it starts, and of twice the rank


def check_room(needed: int, *, free: int) -> str:
    """Say how much room is needed, and refuse an output folder that has less."""
    said = f"about {gib(needed)} are needed for checkpoints and the adapter, and {gib(free)} are free"
    if needed > free:
        raise Refusal(Reason.CONFIG_INVALID, f"--output: {said}; lower checkpoint.keep, or give another folder")
    return said


def _number(spec: TrainSpec) -> int:
    """Return the bytes of a number of the adapter: trl keeps it in float32, over 4 bits in bfloat16."""
    return 2 if spec.quantization is not None else 4


def _states(spec: TrainSpec, adapter: int) -> int:
    return round(adapter * OPTIMIZER_STATES[spec.training.optim] / 4)


def _weights(spec: TrainSpec, outline: Outline, number: int) -> int:
    if spec.quantization is None:
        return outline.parameters * number
    scales = 4 / BLOCK
    if spec.quantization.bnb_4bit_use_double_quant:
        scales = 1 / BLOCK + 4 / (BLOCK * 256)
    packed = outline.linear_parameters * (0.5 + scales)
    return round(packed + (outline.parameters - outline.linear_parameters) * number)


def _activations(outline: Outline, tokens: int, number: int, *, checkpointing: bool) -> int:
    """Return the most that a step holds: layers' inputs and one layer inside, or all layers inside; and the logits."""
    inside = tokens * (15 * outline.hidden + 6 * outline.inner) * number
    layers = outline.layers * tokens * outline.hidden * number + inside if checkpointing else outline.layers * inside
    logits = min(tokens, TILE_TOKENS) * min(outline.vocabulary, TILE_WORDS) * (number + 4)
    return layers + logits


def gib(size: int) -> str:
    """Return an amount as people read it."""
    return f"{size / GIB:.1f} GiB" if size >= GIB / 10 else f"{size / (1 << 20):.0f} MiB"
