"""The rules between config and tensors: the modules that the config means, and the rank it gives each.

vLLM applies every tensor at the rank the tensor has; PEFT refuses another rank and ignores a module that is not meant.
"""

from collections.abc import Mapping

from .findings import Code, Findings
from .foreign import TRANSPOSE
from .patterns import Patterns
from .tensors import Module

_OTHER_RANK = (
    "take the config it was trained with; where its tensors were padded or joined since, r and lora_alpha in proportion"
)


def check_scope(modules: Mapping[str, Module], patterns: Patterns, findings: Findings) -> None:
    """Report modules that the config leaves out, and ranks that are not the config's."""
    for module in modules.values():
        rank = patterns.ranks.of(module.name)
        if rank is not None:
            _check_rank(module, rank, findings)
        if module.saved_as and not _same_by_both_names(module.name, module.saved_as, patterns):
            findings.error(
                Code.PATTERN_NOT_SUPPORTED,
                module.saved_as,
                found=f"another rank or alpha than {module.name}, its name today",
                expected="keys of rank_pattern and alpha_pattern that mean both (vLLM looks up one, PEFT the other)",
                fix="write keys by the names' ends, e.g. q_proj",
            )
        if patterns.targets.has(module.name) is False:
            findings.error(
                Code.NOT_TARGETED,
                module.name,
                found="tensors in the file",
                expected="a module that target_modules, exclude_modules and layers_to_transform leave in",
                fix="take the config it was trained with (vLLM applies every tensor, PEFT what the config names)",
            )


def _same_by_both_names(name: str, other: str, patterns: Patterns) -> bool:
    lookups = (patterns.ranks, patterns.alphas)
    return all(lookup.of(name) == lookup.of(other) for lookup in lookups)


def _check_rank(module: Module, rank: int, findings: Findings) -> None:
    for half, tensor in module.halves.items():
        found = module.rank(half)
        if found in (None, rank):
            continue
        transposed = module.rank_if_transposed() == rank
        findings.error(
            Code.RANK_MISMATCH,
            module.tensor_name(half),
            found=f"{list(tensor.shape)}, transposed" if transposed else f"rank {found}",
            expected=f"{list(tensor.shape[::-1])}" if transposed else f"rank {rank}, as r and rank_pattern say",
            fix=TRANSPOSE if transposed else _OTHER_RANK,
        )
