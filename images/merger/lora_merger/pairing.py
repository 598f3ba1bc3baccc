"""Which weight each pair of the adapter's tensors is for, as the adapter library judges; the rest is refused by name.

The library is asked with the base's own modules and no engine: what only an engine could not serve is merged. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from lora_merger.arithmetic import ADAPTER_WIDTHS, WIDTHS
from lora_merger.described import Checkpoint, Shard
from lora_merger.layouts import find_layouts
from lora_merger.plan import Half, Layout, Pair
from lora_merger.refusal import Refusal, not_mergeable
from lora_operator.adapter import WEIGHTS, Adapter, Base, Code, EngineLimits, Finding, Summary, Tensor, inspect
from lora_operator.adapter.config import LoraConfig, parse_config
from lora_operator.adapter.findings import Findings
from lora_operator.adapter.patterns import Lookup
from lora_operator.adapter.tensors import Module, find_modules

_EMBEDDING: Final = "model.embed_tokens"
_HEAD: Final = "lm_head"
# What an engine can't serve, and a merge doesn't mind.
_ENGINES_OWN: Final = frozenset({Code.LM_HEAD_NOT_SUPPORTED, Code.RANK_TOO_HIGH, Code.UNKNOWN_ENGINE})
_ENGINES_FIELDS: Final = frozenset({"--max-lora-rank", "model_type"})
_WITH_PEFT: Final = {
    Code.DORA_NOT_SUPPORTED: "DoRA",
    Code.BIAS_NOT_SUPPORTED: "trained biases",
    Code.MODULES_TO_SAVE_NOT_SUPPORTED: "modules_to_save",
    Code.INIT_NOT_SUPPORTED: "an initialisation that changed the base (PiSSA and its kin)",
    Code.UNSUPPORTED_VARIANT: "another variant than LoRA and rsLoRA",
}
_OTHER_BASE: Final = "merge it into the base it was trained on"
_FIXES: Final = {
    Code.BASE_MISMATCH: f"{_OTHER_BASE}; if this is the same base, correct the name in adapter_config.json",
}


def pair_up(
    adapter: Adapter, checkpoint: Checkpoint, *, base_name: str | None = None
) -> tuple[tuple[Pair, ...], Summary, tuple[Finding, ...]]:
    """Return what to add to which weight, the adapter in figures, and what a person should know.

    *base_name* is the base's id on the Hub, where it is known: another one than the adapter's is a warning, for shapes
    are compared.
    """
    weights = _matrices(checkpoint.shards)
    findings = Findings()
    config = parse_config(adapter.config_bytes, findings) if adapter.config_bytes is not None else None
    modules = find_modules(adapter, findings)
    layouts = find_layouts(modules.values(), weights, checkpoint, transposed=_is_transposed(config))
    _refuse_tied(modules, checkpoint)
    verdict = inspect(adapter, _base(weights, layouts, modules), EngineLimits(), base_name=base_name)
    verdict = verdict.advising(_FIXES, own_base=_OTHER_BASE)
    errors = [finding for finding in verdict.errors if finding.code not in _ENGINES_OWN]
    if errors:
        raise _refusal(errors)
    if config is None:
        raise not_mergeable("adapter_config.json can't be read")
    pairs = tuple(_pairs(adapter, config, modules.values(), layouts))
    _check_dtypes(pairs, weights)
    warnings = tuple(
        finding
        for finding in verdict.findings
        if finding not in verdict.errors and finding.code not in _ENGINES_OWN and finding.field not in _ENGINES_FIELDS
    )
    return pairs, verdict.summary, warnings


def _matrices(shards: Iterable[Shard]) -> dict[str, Tensor]:
    """Return the base's matrices by the module whose weight they are."""
    return {
        name.removesuffix(".weight"): tensor
        for shard in shards
        for name, tensor in shard.header.tensors.items()
        if name.endswith(".weight") and len(tensor.shape) == 2
    }


def _is_transposed(config: LoraConfig | None) -> bool:
    return config is not None and config.raw.get("fan_in_fan_out") is True


def _refuse_tied(modules: Mapping[str, Module], checkpoint: Checkpoint) -> None:
    touched = [name for name, module in modules.items() if module.embedding or name == _HEAD]
    if touched and checkpoint.tied:
        raise not_mergeable(
            f"the adapter changes {touched[0]}, and the base keeps embedding and head in one weight "
            "(tie_word_embeddings): merging one would change the other. Untie the base first (save it with "
            "tie_word_embeddings=False and a weight of its own for lm_head), or train without this module"
        )


def _base(weights: Mapping[str, Tensor], layouts: Mapping[str, Layout], modules: Mapping[str, Module]) -> Base:
    """Return the base as the library takes it: (out, in) of every module, however it is stored."""
    shapes = {}
    for name, tensor in weights.items():
        first, second = tensor.shape
        shapes[name] = (second, first) if layouts.get(name) is Layout.CONV1D else (first, second)
    for name, module in modules.items():
        if module.embedding and name in shapes and name != _EMBEDDING:
            raise not_mergeable(f"the adapter changes the embedding {name}: only {_EMBEDDING} is merged")
    layers = {int(part) for name in weights for part in name.split(".") if part.isdecimal()}
    return Base(layers=max(layers, default=-1) + 1, modules=shapes, takes=frozenset({_EMBEDDING, _HEAD}))


def _pairs(
    adapter: Adapter, config: LoraConfig, modules: Iterable[Module], layouts: Mapping[str, Layout]
) -> Iterable[Pair]:
    alphas = Lookup(config.alpha_pattern, config.lora_alpha)
    start = adapter.headers[WEIGHTS].data_start
    for module in modules:
        halves = {
            half: Half(
                name=module.tensor_name(half),
                dtype=tensor.dtype,
                shape=(tensor.shape[0], tensor.shape[1]),
                start=start + tensor.begin,
            )
            for half, tensor in module.halves.items()
        }
        alpha = alphas.of(module.name)
        if alpha is None:
            raise not_mergeable(f"alpha_pattern of the adapter does not tell what it is for {module.name}")
        yield Pair(
            module=module.name,
            layout=layouts[module.name],
            a=halves["A"],
            b=halves["B"],
            scaling=config.scaling(halves["A"].shape[0], alpha),
        )


def _check_dtypes(pairs: Sequence[Pair], weights: Mapping[str, Tensor]) -> None:
    for pair in pairs:
        if (found := weights[pair.module].dtype) not in WIDTHS:
            raise not_mergeable(
                f"{pair.weight} of the base is {found}: it is quantised, or of a kind that can't be merged exactly. "
                f"Merge into a base in {', '.join(WIDTHS)}, then quantise the result"
            )
        for half in (pair.a, pair.b):
            if half.dtype not in ADAPTER_WIDTHS:
                raise not_mergeable(
                    f"{half.name} of the adapter is {half.dtype}: save it in one of {', '.join(ADAPTER_WIDTHS)}"
                )


def _refusal(errors: Sequence[Finding]) -> Refusal:
    first = errors[0]
    more = f" ({len(errors) - 1} more)" if len(errors) > 1 else ""
    if first.code in _WITH_PEFT:
        return not_mergeable(
            f"{first.code} ({first.field}): {first.found}: {_WITH_PEFT[first.code]} can't be merged exactly here; "
            f"use PEFT's merge_and_unload{more}"
        )
    return not_mergeable(f"{first}{more}")
