"""A case: an adapter, good or bad, and what must be said of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np

from lora_operator.adapter import Code, EngineLimits
from support.adapters import TINY_LLAMA, AdapterFiles, BaseShape, TensorData, make_adapter, tensor

CPU = EngineLimits(max_lora_rank=16, device="cpu", dtype="float32", version="0.32.0")
"""What `support.real_engine` is started with."""

ALL = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
MANY_NAMES = [f"model.layers.{layer}.self_attn.{name}" for layer in range(16) for name in ("q_proj", "v_proj")]
Q0 = "base_model.model.model.layers.0.self_attn.q_proj"

NULL_TARGETS = b'{"peft_type": "LORA", "r": 8, "lora_alpha": 16, "target_modules": null}'
"""A config that leaves the targets to PEFT."""

Level = Literal["header", "full"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One adapter. `codes` are findings that it must give: errors where it is not servable, else warnings."""

    name: str
    servable: bool
    codes: frozenset[Code] = frozenset()
    write: Callable[[Path], Path]
    """Makes the case's files in a folder, and returns the folder."""
    files: Callable[[], AdapterFiles] | None = None
    """The same as bytes, where bytes can tell it (no pipe, link or device): for a Hub, and for `Adapter.parts`."""
    base: BaseShape = TINY_LLAMA
    engine: EngineLimits = CPU
    level: Level = "header"
    """The level from which on the codes are found: `full` for what only the values tell."""
    askable: bool = True
    """Whether a real vLLM over the tiny model may be asked, and its answer says whether the verdict is right."""
    poisonous: bool = False
    """Whether it may spoil the engine for those after it: to be asked last, of an engine of its own."""
    why: str = field(default="")
    """Where it is refused although vLLM takes it: why."""


def good(name: str, make: Callable[[], AdapterFiles], *codes: Code, **options: object) -> Case:
    """Return a case that is servable, at most with warnings."""
    return _of_files(name, make, True, codes, options)


def bad(name: str, code: Code, make: Callable[[], AdapterFiles], **options: object) -> Case:
    """Return a case that is refused with *code*."""
    return _of_files(name, make, False, (code,), options)


def folder(name: str, code: Code, write: Callable[[Path], Path], **options: object) -> Case:
    """Return a case that no bytes can tell."""
    return Case(name=name, servable=False, codes=frozenset({code}), write=write, **options)  # type: ignore[arg-type]


def ones(*shape: int) -> TensorData:
    """Return a tensor of ones."""
    return tensor(np.ones(shape))


def with_config(**config: object) -> Callable[[], AdapterFiles]:
    """Return a maker of the plain adapter with other fields in its config."""
    return lambda: make_adapter(config=config)


def _of_files(
    name: str, make: Callable[[], AdapterFiles], servable: bool, codes: tuple[Code, ...], options: dict[str, object]
) -> Case:
    return Case(
        name=name,
        servable=servable,
        codes=frozenset(codes),
        write=lambda folder: make().write(folder),
        files=make,
        **options,  # type: ignore[arg-type]
    )
