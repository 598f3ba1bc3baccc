"""How the base stores each weight that the adapter changes: (out, in), or as GPT-2 does, (in, out). Pure.

PEFT asks the layer: a Conv1D is transposed, whatever the adapter's config says. Files have no layers; so what is known
of the model's type decides, then the shapes, and where neither can tell (a square weight) nothing is merged.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from lora_merger.described import Checkpoint
from lora_merger.plan import Layout
from lora_merger.refusal import not_mergeable
from lora_operator.adapter import Tensor
from lora_operator.adapter.families import family_of
from lora_operator.adapter.tensors import Module

# What transformers' model types keep in a Conv1D.
_CONV1D_TYPES: Final = frozenset({"gpt2", "openai-gpt", "imagegpt", "decision_transformer"})
_CONV1D_MODULES: Final = frozenset({"c_attn", "c_proj", "c_fc", "q_attn"})


def find_layouts(
    modules: Iterable[Module], weights: Mapping[str, Tensor], checkpoint: Checkpoint, *, transposed: bool
) -> dict[str, Layout]:
    """Return each module's layout, or refuse; *transposed* is the adapter's own word for it (fan_in_fan_out)."""
    return {
        module.name: Layout.EMBEDDING
        if module.embedding
        else _layout(module, weights, checkpoint, transposed=transposed)
        for module in modules
    }


def _layout(module: Module, weights: Mapping[str, Tensor], checkpoint: Checkpoint, *, transposed: bool) -> Layout:
    leaf = module.name.rpartition(".")[2]
    if checkpoint.config.get("model_type") in _CONV1D_TYPES:
        return Layout.CONV1D if leaf in _CONV1D_MODULES else Layout.LINEAR
    if family_of(checkpoint.config) is not None or not (transposed or leaf in _CONV1D_MODULES):
        return Layout.LINEAR
    shape = weights[module.name].shape if module.name in weights else ()
    if len(shape) == 2 and shape[0] == shape[1]:
        return _of_square(module.name, weights, checkpoint)
    halves = [module.halves[half].shape for half in ("A", "B") if half in module.halves]
    # A shape that is neither is the adapter library's to refuse.
    swapped = tuple(map(len, halves)) == (2, 2) and shape == (halves[0][1], halves[1][0])
    return Layout.CONV1D if swapped else Layout.LINEAR


def _of_square(name: str, weights: Mapping[str, Tensor], checkpoint: Checkpoint) -> Layout:
    """Tell by the base's other modules of such names: a bias is as long as the weight's side that is its output."""
    lengths = {
        tensor_name.removesuffix(".bias"): tensor.shape
        for shard in checkpoint.shards
        for tensor_name, tensor in shard.header.tensors.items()
        if tensor_name.endswith(".bias")
    }
    told = set()
    for other, weight in weights.items():
        rows, columns = weight.shape
        if other.rpartition(".")[2] in _CONV1D_MODULES and rows != columns and other in lengths:
            told.add(Layout.CONV1D if lengths[other] == (columns,) else Layout.LINEAR)
    if len(told) == 1:
        return told.pop()
    raise not_mergeable(
        f"{name}.weight is square, and nothing tells whether model_type {checkpoint.config.get('model_type')!r} "
        "stores it transposed, as GPT-2 does: the merge could be wrong unseen. Merge it with PEFT's merge_and_unload"
    )
