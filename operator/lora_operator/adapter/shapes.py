"""The rules against the base: modules it lacks, shapes that are not its own, and embeddings.

vLLM copies a smaller tensor into a corner of its buffer and drops layers it does not have, both without a word.
"""

from collections.abc import Collection, Mapping

from .base import Base
from .config import LoraConfig
from .engine import EngineLimits
from .experts import is_expert
from .findings import OWN_BASE, Code, Findings, repr_bounded
from .foreign import TRANSPOSE
from .misnamed import explain_module
from .patterns import Patterns, layer_of
from .tensors import Module

# What they are called in most architectures; a base says what they are in its own.
_EMBEDDING = "model.embed_tokens"
_HEAD = "lm_head"


def check_against_base(
    modules: Mapping[str, Module], base: Base, misnamed: Mapping[str, str], findings: Findings
) -> None:
    """Report modules that the base lacks, shapes that are not its own, and targets without tensors.

    *misnamed* maps those that it has under another name to that.
    """
    words = {name: explain_module(name, base, misnamed, modules) for name in modules if name not in base.modules}
    if not base.named and base.modules.keys().isdisjoint(modules):
        _report_names(modules, next(filter(None, words.values()), None), findings)
        return
    has_experts = bool(words) and any(map(is_expert, base.modules))
    for module in modules.values():
        shape = base.modules.get(module.name)
        if shape is None:
            _report_module(module.name, base, words[module.name], findings, has_experts=has_experts)
            continue
        if module.embedding != (module.name == base.embedding):
            findings.error(
                Code.UNKNOWN_TENSOR,
                module.name,
                found="lora_embedding" if module.embedding else "lora_A and lora_B",
                expected="lora_embedding_A and _B on an embedding alone",
                fix="save the adapter again with PEFT",
            )
            continue
        _check_shape(module, module.widths_on(shape), findings)


def check_targets(patterns: Patterns, base: Base, findings: Findings) -> None:
    """Report a config that also means blocks, norms or the like, which vLLM never asks of and PEFT refuses."""
    meant = patterns.targets.among(base.others)
    if meant:
        findings.error(
            Code.MALFORMED_CONFIG,
            "target_modules",
            found=f"{len(meant)} modules that are no linear layers, e.g. {meant[0]}",
            expected="linear layers and embeddings alone (PEFT refuses the others)",
            fix="name the linear layers that it was trained on, e.g. q_proj",
        )


def check_plan(config: LoraConfig, patterns: Patterns, base: Base, findings: Findings) -> frozenset[str]:
    """Before training: return the modules that PEFT will put a LoRA on; report if there are none, or others as well."""
    planned = {name: patterns.targets.has(name) for name in base.modules}
    if not any(targeted is None or targeted for targeted in planned.values()):
        findings.error(
            Code.UNKNOWN_MODULE,
            "target_modules",
            found=repr_bounded(config.target_modules),
            expected=f"modules of the base, e.g. {_example(base)}",
            fix="name modules that the base has, or all-linear",
        )
    unserved = sorted(filter(patterns.targets.has, base.unserved))
    if unserved:
        findings.error(
            Code.UNKNOWN_MODULE,
            "target_modules",
            found=f"{len(unserved)} modules on which vLLM takes no LoRA as well, e.g. {unserved[0]}",
            expected="none of them",
            fix="leave them out of target_modules, or add exclude_modules, e.g. .*vision_tower.*",
        )
    return frozenset(name for name, targeted in planned.items() if targeted)


def check_embeddings(modules: Collection[str], base: Base | None, engine: EngineLimits, findings: Findings) -> None:
    """Report a LoRA on the embeddings or the head where vLLM has none, or where it spoils the base's answers."""
    embedding, head = (base.embedding, base.head) if base else (_EMBEDDING, _HEAD)
    for name in (embedding, head):
        if name in modules and base is not None and base.takes is not None and name not in base.takes:
            findings.error(
                Code.UNKNOWN_MODULE,
                name,
                found="a LoRA on it",
                expected=f"none (vLLM takes none there for {base.family})",
                fix=f"train without {name} in target_modules",
            )
        elif name in modules and base is not None and base.takes is None:
            findings.warning(
                Code.NOT_CHECKED,
                name,
                found="a LoRA on it",
                expected="an architecture known to take one",
                fix="give the base's config.json",
            )
    if head in modules:
        report = findings.warning if engine.device == "cuda" else findings.error
        report(
            Code.LM_HEAD_NOT_SUPPORTED,
            head,
            found="a LoRA on it",
            expected="none: on CPU it spoils the base's answers (vllm-project/vllm#48421), on GPU it is not proven",
            fix=f"train without {head} in target_modules",
        )


def check_architecture(base: Base, findings: Findings) -> None:
    """Report an architecture on which vLLM takes no LoRA, or of which that is not known."""
    if not base.engine_serves_lora:
        findings.error(
            Code.ARCHITECTURE_NOT_SUPPORTED,
            "model_type",
            found=base.family,
            expected="an architecture whose class in vLLM takes LoRAs (with this one it does not start)",
            fix="merge the adapter into the base (PEFT's merge_and_unload), and serve that",
        )
    elif base.family is None:
        findings.warning(
            Code.NOT_CHECKED,
            "model_type",
            found="an architecture that is not known here; only names and shapes were compared",
            expected="one of those that docs/adapters.md lists",
            fix="check that the adapter answers as it should",
        )


def check_tying(modules: Collection[str], config: LoraConfig, base: Base | None, findings: Findings) -> None:
    """Report a LoRA that PEFT shares between embeddings and head: vLLM would apply it to one of them."""
    ends = (base.embedding, base.head) if base else (_EMBEDDING, _HEAD)
    if config.raw.get("ensure_weight_tying") and any(name in modules for name in ends):
        findings.error(
            Code.UNSUPPORTED_VARIANT,
            "ensure_weight_tying",
            found=repr_bounded(config.raw["ensure_weight_tying"]),
            expected="false where embeddings or head are targeted",
            fix="train without embed_tokens and lm_head in target_modules",
        )


def check_missing(
    modules: Collection[str], config: LoraConfig, patterns: Patterns, base: Base, findings: Findings
) -> None:
    """Report modules that the config means and the file has no tensors for."""
    has = patterns.targets.has
    meant = (name for name in (*base.modules, *base.unserved) if name not in modules)
    missing = [name for name in meant if not is_expert(name) and has(name)]
    if not missing:
        return
    # PEFT starts such a module at B = 0, which changes nothing - unless the config asks for a random B.
    report = findings.error if not config.init else findings.warning
    report(
        Code.MISSING_TENSOR,
        "target_modules",
        found=f"no tensors for {len(missing)} of them, e.g. {missing[0]}",
        expected="tensors for each",
        fix="if they were trained, save the adapter again; else leave them out",
    )


def _check_shape(module: Module, widths: Mapping[str, int], findings: Findings) -> None:
    for half, tensor in module.halves.items():
        if len(tensor.shape) == 2 and tensor.shape[1 if half == "A" else 0] != widths[half]:
            across = module.rank_if_transposed()
            transposed = module.shapes == {"A": (widths["A"], across), "B": (across, widths["B"])}
            rank = tensor.shape[0 if half == "A" else 1]
            expected = [rank, widths[half]] if half == "A" else [widths[half], rank]
            findings.error(
                Code.SHAPE_MISMATCH,
                module.tensor_name(half),
                found=f"{list(tensor.shape)}, transposed" if transposed else list(tensor.shape),
                expected=f"{list(tensor.shape[::-1]) if transposed else expected}",
                fix=TRANSPOSE if transposed else f"{OWN_BASE}, or train it on this one",
            )


def _example(base: Base) -> str:
    """Return the last name of a module that any adapter of this base may have."""
    return next((name for name in base.modules if layer_of(name) is not None), base.head).rpartition(".")[2]


def _report_names(modules: Mapping[str, Module], words: tuple[str, str] | None, findings: Findings) -> None:
    expected, fix = words or (
        "an architecture that is known, or one whose checkpoint has the names that transformers gives modules",
        "merge the adapter into it",
    )
    findings.error(
        Code.BASE_NOT_READABLE,
        "base model",
        found=f"none of the adapter's {len(modules)} modules under the names of its checkpoint",
        expected=expected,
        fix=fix,
    )


def _report_module(
    name: str, base: Base, words: tuple[str, str] | None, findings: Findings, *, has_experts: bool
) -> None:
    layer = layer_of(name)
    beyond = layer is not None and layer >= base.layers
    if words is not None:
        expected, fix = words
    elif name in base.unserved:
        expected, fix = f"none (vLLM takes none there for {base.family})", "train without it, or merge it into the base"
    elif is_expert(name) and not has_experts:
        expected, fix = "none on experts, where PEFT leaves it out", "train without experts, or merge it into the base"
    else:
        expected = f"a module of the base, which has {base.layers} layers"
        fix = f"{OWN_BASE} (vLLM drops such tensors without a word, or refuses them)"
    code = Code.LAYER_OUT_OF_RANGE if beyond else Code.UNKNOWN_MODULE
    findings.error(code, name, found="in the adapter", expected=expected, fix=fix)
