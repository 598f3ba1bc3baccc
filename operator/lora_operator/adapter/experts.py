"""The rules over LoRAs on experts and on what routes to them.

vLLM applies the LoRA of each expert by itself. transformers 5 keeps a layer's experts in one, so that PEFT makes one
LoRA of theirs, with rules of its own, or finds nothing to put them on. Read from peft's transformers_weight_conversion
(0.21); an end-to-end test holds them to PEFT.
"""

from collections import Counter
from collections.abc import Collection, Mapping

from .base import Base
from .config import LoraConfig
from .families import FAMILIES
from .family import Family
from .findings import Code, Findings, repr_bounded
from .names import CONFIG
from .patterns import Patterns
from .tensors import Module

_EXPERTS = ".experts."


def is_expert(name: str) -> bool:
    """Tell whether a module is a part of one expert."""
    return _EXPERTS in name


def check_experts(
    modules: Mapping[str, Module], config: LoraConfig, patterns: Patterns, base: Base, findings: Findings
) -> None:
    """Report LoRAs on experts and routers that PEFT leaves out, refuses, or scales otherwise than vLLM."""
    family = FAMILIES.get(base.family or "")
    experts = [name for name in modules if is_expert(name)]
    if family is None and experts:
        _report_unknown(experts[0], findings)
    if family is None or not family.projections:
        return
    routers = [name for name in modules if name.endswith(f".{family.router}")]
    meant = _meant(family, config, patterns, base)
    _check_config(family, meant, config, findings)
    for name in modules:
        part = name.rpartition(".")[2]
        if part in family.projections and (not is_expert(name) or part not in meant or family.down not in meant):
            _report_left_out(name, f"{', '.join(family.projections)} as targets, and only in experts", findings)
    for name in routers:
        if family.router_name not in meant:
            _report_left_out(name, f"{family.router_name} among the targets", findings)
    if experts or routers:
        _check_scaling(config, findings, has_experts=bool(experts))
    _check_complete(family, experts, base, findings)
    if experts or routers:
        findings.warning(
            Code.NOT_CHECKED,
            (experts or routers)[0],
            found=f"LoRAs on experts or their routers ({len(experts) + len(routers)} modules), held to PEFT alone",
            expected="a GPU, whose kernels for experts take LoRAs",
            fix="check that the adapter answers as it should",
        )


def check_planned_experts(config: LoraConfig, patterns: Patterns, base: Base, findings: Findings) -> None:
    """Before training: report experts and routers as targets, whose LoRAs PEFT will save as vLLM does not take them."""
    family = FAMILIES.get(base.family or "")
    if family is None or not family.projections:
        return
    meant = _meant(family, config, patterns, base)
    if meant:
        findings.error(
            Code.UNSUPPORTED_VARIANT,
            "target_modules",
            found=f"experts or their routers ({', '.join(sorted(meant))})",
            expected="none of them: since transformers 5 PEFT saves LoRAs on their parameters (target_parameters)",
            fix="name the modules of the attention, e.g. q_proj",
        )
    _check_config(family, meant, config, findings)


def _meant(family: Family, config: LoraConfig, patterns: Patterns, base: Base) -> Collection[str]:
    """Return which parts of experts, and the router, PEFT takes for targets: by their last name, in all layers."""
    names = (*family.projections, family.router_name)
    targets = config.target_modules
    if not isinstance(targets, str):
        return {name for name in names if any(name == target or target.endswith(f".{name}") for target in targets)}
    if targets.lower() == "all-linear":
        return names  # whatever is excluded
    # A regex meets the one module that holds a layer's experts, and the parts that they had.
    layers = [f"{family.prefix}.{layer}.mlp" for layer in range(base.layers)]
    full = {name: f"{'' if name == family.router_name else 'experts.'}{name}" for name in names}
    return {name for name in names if any(patterns.targets.has(f"{layer}.{full[name]}") for layer in layers)}


def _check_config(family: Family, meant: Collection[str], config: LoraConfig, findings: Findings) -> None:
    """Report what PEFT refuses as soon as experts or routers are targets, with tensors or without."""
    joined = family.joined
    if meant and any(name in meant for name in joined) and not all(name in meant for name in joined):
        findings.error(
            Code.MALFORMED_CONFIG,
            "target_modules",
            found=f"{', '.join(name for name in joined if name in meant)} alone",
            expected=f"all of {', '.join(joined)}, which are one in transformers 5",
            fix="name them all, or none",
        )
    if meant and config.raw.get("lora_dropout"):
        findings.error(
            Code.MALFORMED_CONFIG,
            "lora_dropout",
            found=repr_bounded(config.raw["lora_dropout"]),
            expected="0 where experts or their routers are targets (PEFT refuses another)",
            fix=f"write 0, in {CONFIG}: it matters in training alone",
        )
    if meant and not config.init:
        findings.error(
            Code.MISSING_TENSOR,
            "init_lora_weights",
            found=repr_bounded(config.init),
            expected="true, where experts or their routers are targets",
            fix=f"write true, in {CONFIG}: the tensors replace what it starts with",
        )


def _check_scaling(config: LoraConfig, findings: Findings, *, has_experts: bool) -> None:
    """Report what PEFT looks up by other names than vLLM, and a scaling that the joined rank changes."""
    for name, given in (
        ("rank_pattern", bool(config.rank_pattern)),
        ("alpha_pattern", bool(config.alpha_pattern)),
        ("use_rslora", config.use_rslora and has_experts),
    ):
        if given:
            findings.error(
                Code.UNSUPPORTED_VARIANT,
                name,
                found=repr_bounded(config.raw[name]),
                expected="not set beside LoRAs on experts or their routers (PEFT and vLLM scale them otherwise)",
                fix="train experts with one rank and alpha, without use_rslora",
            )


def _check_complete(family: Family, experts: Collection[str], base: Base, findings: Findings) -> None:
    """Report a layer of which only some experts have a LoRA: PEFT makes one of all of theirs."""
    found, whole = Counter(map(_place, experts)), Counter(map(_place, filter(is_expert, base.modules)))
    joined = family.joined
    for block in sorted({block for block, _ in found}):
        number = whole[block, family.down]
        counts = {name: found[block, name] for name in family.projections}
        if not set(counts.values()) <= {0, number} or len({counts[name] for name in joined}) > 1:
            findings.error(
                Code.UNPAIRED_TENSOR,
                block,
                found=", ".join(f"{name} of {count}" for name, count in counts.items()),
                expected=f"LoRAs on all {number} experts of a layer, and on {' and '.join(joined)} together, or none",
                fix="save the adapter again",
            )


def _place(name: str) -> tuple[str, str]:
    """Return the layer's block that an expert's part is in, and the part."""
    return name.partition(_EXPERTS)[0], name.rpartition(".")[2]


def _report_left_out(name: str, expected: str, findings: Findings) -> None:
    findings.error(
        Code.NOT_TARGETED,
        name,
        found="tensors in the file",
        expected=expected,
        fix="train without it (vLLM applies every tensor, PEFT what it finds a place for)",
    )


def _report_unknown(name: str, findings: Findings) -> None:
    findings.error(
        Code.UNSUPPORTED_VARIANT,
        name,
        found="a LoRA on an expert",
        expected="none, in an architecture that is not known: PEFT may leave it out, which vLLM applies",
        fix="train without experts in target_modules, or merge it into the base",
    )
