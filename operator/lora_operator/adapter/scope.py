"""The rules between config and tensors: the modules that the config means, and the rank it gives each.

vLLM applies every tensor at the rank the tensor has; PEFT refuses another rank and ignores a module that is not meant.
"""

from collections.abc import Mapping

from .config import LoraConfig
from .findings import Code, Findings
from .patterns import Lookup, Targets, is_literal
from .tensors import Module

# Every key is compared with every module; a large model with a key a module needs fewer than this.
_LOOKUPS_LIMIT = 2_000_000


def is_affordable(modules: Mapping[str, Module], config: LoraConfig, findings: Findings) -> bool:
    """Report patterns that are there to keep a processor busy."""
    keys = len(config.rank_pattern) + len(config.alpha_pattern)
    if len(modules) * keys <= _LOOKUPS_LIMIT:
        return True
    findings.error(
        Code.PATTERN_NOT_SUPPORTED,
        "rank_pattern",
        found=f"{keys} keys with alpha_pattern, for {len(modules)} modules",
        expected=f"at most {_LOOKUPS_LIMIT} pairs of both",
        fix="name modules by their last part where they share a rank",
    )
    return False


def check_scope(modules: Mapping[str, Module], config: LoraConfig, findings: Findings) -> None:
    """Report modules that the config leaves out, and ranks that are not the config's."""
    ranks, targets = Lookup(config.rank_pattern, config.rank), Targets(config)
    ranks_are_certain = all(is_literal(key) for key in config.rank_pattern)
    unknown = 0
    for module in modules.values():
        if ranks_are_certain:
            _check_rank(module, ranks.of(module.name), findings)
        targeted = targets.has(module.name)
        unknown += targeted is None
        if targeted is False:
            findings.error(
                Code.NOT_TARGETED,
                module.name,
                found="tensors in the file",
                expected="a module that target_modules, exclude_modules and layers_to_transform leave in",
                fix="take the config it was trained with (vLLM applies every tensor, PEFT what the config names)",
            )
    if unknown:
        findings.warning(
            Code.NOT_CHECKED,
            "target_modules",
            found=f"a regex or pattern for {unknown} modules",
            expected="a list of names",
            fix="make sure that it names exactly the modules in the file",
        )


def _check_rank(module: Module, rank: int, findings: Findings) -> None:
    for half in module.halves:
        if module.rank(half) not in (None, rank):
            findings.error(
                Code.RANK_MISMATCH,
                module.tensor_name(half),
                found=f"rank {module.rank(half)}",
                expected=f"rank {rank}, as r and rank_pattern say",
                fix="make r and rank_pattern those it was trained with",
            )
