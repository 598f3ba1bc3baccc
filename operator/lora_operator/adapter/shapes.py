"""The rules against the base: modules it lacks, shapes that are not its own, and embeddings.

vLLM copies a smaller tensor into a corner of its buffer and drops layers it does not have, both without a word.
"""

from collections.abc import Collection, Mapping

from .base import EMBEDDING, HEAD, Base
from .config import LoraConfig
from .engine import EngineLimits
from .findings import Code, Findings
from .patterns import Targets, layer_of
from .tensors import Module


def check_against_base(modules: Mapping[str, Module], config: LoraConfig, base: Base, findings: Findings) -> None:
    """Report modules that the base lacks, shapes that are not its own, and targets without tensors."""
    for module in modules.values():
        shape = base.modules.get(module.name)
        if shape is None:
            _report_module(module.name, base, findings)
            continue
        if module.embedding != (module.name == EMBEDDING):
            findings.error(
                Code.UNKNOWN_TENSOR,
                module.name,
                found="lora_embedding" if module.embedding else "lora_A and lora_B",
                expected="lora_embedding_A and _B on an embedding alone",
                fix="save the adapter again with PEFT",
            )
            continue
        # A multiplies the module's input, B makes its output; for an embedding the input is the token's row.
        rows, columns = shape
        wanted = {"A": rows, "B": columns} if module.embedding else {"A": columns, "B": rows}
        for half, tensor in module.halves.items():
            if len(tensor.shape) == 2 and tensor.shape[1 if half == "A" else 0] != wanted[half]:
                rank = tensor.shape[0 if half == "A" else 1]
                expected = [rank, wanted[half]] if half == "A" else [wanted[half], rank]
                findings.error(
                    Code.SHAPE_MISMATCH,
                    module.tensor_name(half),
                    found=list(tensor.shape),
                    expected=f"{expected}",
                    fix="serve it on the base it was trained on, or train it on this one",
                )
    _check_missing(modules, config, base, findings)


def check_plan(config: LoraConfig, base: Base, findings: Findings) -> frozenset[str]:
    """Before training: return the modules that PEFT will put a LoRA on; report if there are none."""
    targets = Targets(config)
    planned = {name: targets.has(name) for name in base.modules}
    if not any(targeted is None or targeted for targeted in planned.values()):
        findings.error(
            Code.UNKNOWN_MODULE,
            "target_modules",
            found=config.target_modules,
            expected="modules of the base, e.g. q_proj",
            fix="name modules that the base has, or all-linear",
        )
    return frozenset(name for name, targeted in planned.items() if targeted)


def check_embeddings(modules: Collection[str], base: Base | None, engine: EngineLimits, findings: Findings) -> None:
    """Report a LoRA on the embeddings or the head where vLLM has none, or where it spoils the base's answers."""
    for name in (EMBEDDING, HEAD):
        if name in modules and base is not None and base.serves_embeddings is False:
            findings.error(
                Code.UNKNOWN_MODULE,
                name,
                found="a LoRA on it",
                expected="none (vLLM takes none for this architecture)",
                fix=f"train without {name} in target_modules",
            )
        elif name in modules and base is not None and base.serves_embeddings is None:
            findings.warning(
                Code.NOT_CHECKED,
                name,
                found="a LoRA on it",
                expected="an architecture known to take one",
                fix="give the base's config.json",
            )
    if HEAD in modules:
        report = findings.warning if engine.device == "cuda" else findings.error
        report(
            Code.LM_HEAD_NOT_SUPPORTED,
            HEAD,
            found="a LoRA on it",
            expected="none: on CPU it spoils the base's answers (vllm-project/vllm#48421), on GPU it is not proven",
            fix="train without lm_head in target_modules",
        )


def check_tying(modules: Collection[str], config: LoraConfig, findings: Findings) -> None:
    """Report a LoRA that PEFT shares between embeddings and head: vLLM would apply it to one of them."""
    if config.raw.get("ensure_weight_tying") and (EMBEDDING in modules or HEAD in modules):
        findings.error(
            Code.UNSUPPORTED_VARIANT,
            "ensure_weight_tying",
            found=config.raw["ensure_weight_tying"],
            expected="false where embeddings or head are targeted",
            fix="train without embed_tokens and lm_head in target_modules",
        )


def _check_missing(modules: Mapping[str, Module], config: LoraConfig, base: Base, findings: Findings) -> None:
    targets = Targets(config)
    missing = [name for name in base.modules if name not in modules and targets.has(name)]
    if not missing:
        return
    # PEFT starts such a module at B = 0, which changes nothing - unless the config asks for a random B.
    report = findings.error if config.raw.get("init_lora_weights") is False else findings.warning
    report(
        Code.MISSING_TENSOR,
        "target_modules",
        found=f"no tensors for {len(missing)} of them, e.g. {missing[0]}",
        expected="tensors for each",
        fix="if they were trained, save the adapter again; else leave them out",
    )


def _report_module(name: str, base: Base, findings: Findings) -> None:
    layer = layer_of(name)
    beyond = layer is not None and layer >= base.layers
    findings.error(
        Code.LAYER_OUT_OF_RANGE if beyond else Code.UNKNOWN_MODULE,
        name,
        found="in the adapter",
        expected=f"a module of the base, which has {base.layers} layers",
        fix="serve it on the base it was trained on (vLLM drops such tensors without a word, or refuses them)",
    )
