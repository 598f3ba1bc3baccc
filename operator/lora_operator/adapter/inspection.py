"""`inspect`: judge an adapter as the engine will, and answer everything that is wrong with it at once.

Pure: the operator calls it on a header before any pod is touched, the agent on every byte before the engine sees one,
the trainer before it publishes. Servable: the engine loads it, answers as PEFT does, and nobody else's answers change.
"""

from collections.abc import Collection, Mapping

from .base import Base
from .config import LoraConfig, parse_config, with_default_targets
from .copies import check_copies
from .engine import EngineLimits, check_engine, check_modules, check_rank
from .experts import check_experts, check_planned_experts
from .files import Adapter, check_files
from .findings import OWN_BASE, Code, Findings, Summary, Verdict
from .misnamed import find_misnamed
from .names import CONFIG, is_hub_id, is_weights
from .patterns import Patterns, layer_of
from .scope import check_scope
from .shapes import (
    check_against_base,
    check_architecture,
    check_embeddings,
    check_missing,
    check_plan,
    check_targets,
    check_tying,
)
from .tensors import Module, check_pairs, find_modules, under_present_names
from .values import check_values
from .variants import check_variant


def inspect(
    adapter: Adapter,
    base: Base | None,
    engine: EngineLimits,
    *,
    base_name: str | None = None,
    name_decides: bool = False,
) -> Verdict:
    """Judge *adapter* for an engine that serves *base*, None where its shapes can't be had.

    *base_name* is the base's Hub id. Neither PEFT nor vLLM compares it with the adapter's base_model_name_or_path, and
    equal bases go by many names (mirrors, quantised copies). So another Hub id is an error (`BaseMismatch`) only where
    shapes can't be compared; where they are, they decide and the name is a warning - unless *name_decides*, for a
    person who insists on it. A path of the training machine is always a warning.
    """
    findings = Findings()
    findings.add_all(adapter.problems)
    check_files(adapter, findings)
    config = parse_config(adapter.config_bytes, findings) if adapter.config_bytes is not None else None
    if config is not None:
        config = with_default_targets(config, base.default_targets if base else (), findings)
    modules = under_present_names(find_modules(adapter, findings), base)
    check_pairs(modules, findings)
    check_copies(adapter, modules, base, findings)
    shapes_checked = base is not None and config is not None and _were_read(modules, findings)
    check_engine(engine, findings)
    if config is not None:
        check_rank(engine, config, findings)
        check_variant(config, base, findings)
        patterns = Patterns(config)
        named = (*base.modules, *base.others, *base.unserved) if base else ()
        affordable = patterns.are_affordable([*modules, *named], findings)
        if affordable:
            check_scope(modules, patterns, findings)
            check_values(modules, config, patterns, adapter, engine, findings)
        touched = _check_base(adapter, modules, config, patterns if affordable else None, base, findings)
        patterns.report(findings)
        check_modules(engine, touched, findings)
        check_embeddings(touched, base, engine, findings)
        check_tying(touched, config, base, findings)
        _check_base_name(config.base_model, base_name, findings, decides=name_decides or not shapes_checked)
    _report_unchecked(adapter, base, findings)
    found = findings.all()
    return Verdict(
        servable=not any(finding.severity == "error" for finding in found),
        findings=found,
        summary=_summary(adapter, config, modules),
        shapes_checked=shapes_checked,
    )


def _check_base(  # noqa: PLR0913, PLR0917 - it hands on what each rule needs
    adapter: Adapter,
    modules: Mapping[str, Module],
    config: LoraConfig,
    patterns: Patterns | None,
    base: Base | None,
    findings: Findings,
) -> Collection[str]:
    """Compare with the base; return the modules that have a LoRA, before training those that will."""
    if base is None:
        return modules.keys()
    check_architecture(base, findings)
    if patterns:
        check_targets(patterns, base, findings)
    if adapter.level == "config":
        if patterns is None:
            return ()
        check_planned_experts(config, patterns, base, findings)
        return check_plan(config, patterns, base, findings)
    misnamed = find_misnamed(modules, base)
    check_against_base(modules, base, misnamed, findings)
    if patterns:
        check_experts(modules, config, patterns, base, findings)
        # Of what was not read, or has other names, it is said that and nothing else.
        if _were_read(modules, findings):
            check_missing({*modules, *misnamed.values()}, config, patterns, base, findings)
    return modules.keys()


def _were_read(modules: Mapping[str, Module], findings: Findings) -> bool:
    return bool(modules) and not findings.has(Code.MISSING_FILE, Code.MALFORMED_HEADER, Code.TRUNCATED_FILE)


def _check_base_name(named: str | None, wanted: str | None, findings: Findings, *, decides: bool) -> None:
    if not named or wanted is None or named.casefold() == wanted.casefold():
        return
    report = findings.error if decides and is_hub_id(named) and is_hub_id(wanted) else findings.warning
    report(
        Code.BASE_MISMATCH,
        "base_model_name_or_path",
        found=named,
        expected=wanted,
        fix=f"{OWN_BASE}; if this is the same base, correct the name in {CONFIG}",
    )


def _report_unchecked(adapter: Adapter, base: Base | None, findings: Findings) -> None:
    if adapter.level == "config":
        findings.warning(
            Code.NOT_CHECKED,
            "tensors",
            found="none yet",
            expected="the trained weights",
            fix="inspect the adapter again when it is trained",
        )
    elif base is None:
        findings.error(
            Code.BASE_NOT_READABLE,
            "base model",
            found="no shapes",
            expected="a base whose safetensors headers or config.json can be read, of a family that is known",
            fix="make the base model readable (a token, the right name), or merge the adapter into it",
        )


def _summary(adapter: Adapter, config: LoraConfig | None, modules: Mapping[str, Module]) -> Summary:
    tensors = [tensor for module in modules.values() for tensor in module.halves.values()]
    layers = {layer for layer in map(layer_of, modules) if layer is not None}
    dtypes = {tensor.dtype for tensor in tensors}
    complete = any(is_weights(name) for name in adapter.files)
    return Summary(
        rank=config.highest_rank()[1] if config else None,
        lora_alpha=config.lora_alpha if config else None,
        scaling=config.scaling(config.rank, config.lora_alpha) if config else None,
        target_modules=tuple(sorted({name.rpartition(".")[2] for name in modules} or _named(config))),
        dtype=dtypes.pop() if len(dtypes) == 1 else ("mixed" if dtypes else None),
        layers=len(layers) if tensors else None,
        parameters=sum(tensor.elements for tensor in tensors) if tensors else None,
        size_bytes=adapter.size_bytes if complete else None,
        digest=adapter.digest,
    )


def _named(config: LoraConfig | None) -> set[str]:
    if config is None or isinstance(config.target_modules, str):
        return set()
    return {name.rpartition(".")[2] for name in config.target_modules}
