"""Modules that the base has under another name, or in one where the adapter has them apart: the base may well be right.

A wrapper, or another class around the same model, changes where the names begin, not how they end, nor the shapes.
"""

from collections.abc import Mapping
from dataclasses import replace

from .base import Base
from .foreign import UNWRAP, WRAPPERS
from .names import JOINED
from .patterns import layer_position
from .tensors import Module

# What may stand before a layer's number in the name of a module of the decoder; what sees or hears has other words.
_STEMS = frozenset(
    {"model", "base_model", "language_model", "text_model", "llm", "transformer", "decoder", "gpt_neox", "layers", "h"}
)
_IN_ONE = JOINED | {"W_pack": JOINED["qkv_proj"]}


def find_misnamed(modules: Mapping[str, Module], base: Base) -> dict[str, str]:
    """Return the base's names for modules whose names begin otherwise there, and end as they do, with their shapes."""
    unknown = [module for module in modules.values() if module.name not in base.modules]
    if not unknown:
        return {}
    ends: dict[str, str | None] = {}
    for name in base.modules:
        end = _split(name)[1]
        ends[end] = None if end in ends else name  # of two, neither is meant for sure
    found = {}
    for module in unknown:
        stem, end = _split(".".join(part for part in module.name.split(".") if part not in WRAPPERS))
        present = ends.get(end)
        if present and _STEMS.issuperset(filter(None, stem.split("."))) and _fits(module, base.modules[present]):
            found[module.name] = present
    return found


def explain_module(
    name: str, base: Base, misnamed: Mapping[str, str], modules: Mapping[str, Module]
) -> tuple[str, str] | None:
    """Say what the base has in the place of *name*, and what to do; None where it has nothing like it."""
    present = misnamed.get(name)
    if present is not None:
        fix = _cause(name, present)
        if present not in modules:
            renamed = replace(modules[name], name=present, saved_as=None)
            fix = f"{fix}, or rename the tensors, as in {renamed.tensor_name('A')}"
        return f"{present}, as the base calls it", fix
    block, _, last = name.rpartition(".")
    for one, parts in _IN_ONE.items():
        if last in parts and f"{block}.{one}" in base.modules:
            return _instead((one,), parts)
        if last == one and all(f"{block}.{part}" in base.modules for part in parts):
            return _instead(parts, (one,))
    return None


def _instead(present: tuple[str, ...], absent: tuple[str, ...]) -> tuple[str, str]:
    here, there = ", ".join(present), ", ".join(absent)
    return (
        f"{here}, which this base has in the place of {there}",
        f"train for this base's projections (target_modules with {here}), or serve it on a base that has {there}",
    )


def _cause(name: str, present: str) -> str:
    parts = name.split(".")
    if not WRAPPERS.isdisjoint(parts):
        return UNWRAP
    if present.endswith(f".{name}"):
        return "load the base with AutoModelForCausalLM in training"
    if "base_model" in parts:
        return "put PEFT on the model once"
    return "load the base by its own class in training"


def _split(name: str) -> tuple[str, str]:
    """Return what stands before the number of the layer, and the rest; outside of layers, before the last part."""
    position = layer_position(name)
    if position is None:
        stem, _, end = name.rpartition(".")
        return stem, end
    return name[:position], name[position:]


def _fits(module: Module, shape: tuple[int, int]) -> bool:
    widths = module.widths_on(shape)
    return all(
        len(tensor.shape) == 2 and tensor.shape[1 if half == "A" else 0] == widths[half]
        for half, tensor in module.halves.items()
    )
