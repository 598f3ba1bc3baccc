"""Which kinds of LoRA are served: what vLLM refuses, and what it takes but computes otherwise than PEFT.

vLLM reads some fields to refuse them and never looks at others, so an adapter that needs one of those loads and answers
wrongly. Sources: vllm/lora/peft_helper.py (0.32) and peft/tuners/lora/config.py (0.21).
"""

import math

from .base import Base
from .config import LoraConfig
from .findings import Code, Findings, repr_bounded
from .foreign import explain_text
from .names import CONFIG

_MERGE = "merge it into the base (PEFT's merge_and_unload), or train a plain LoRA"
_RETRAIN = "train without it"
_NO_BIAS = "train without bias, or merge it into the base"

# Inits that only choose where training starts; with the others PEFT changes the base's weights as well. PEFT knows two
# of the names in any case of their letters.
_PLAIN_INITS = frozenset({"eva", "orthogonal", "lora_ga"})
_PLAIN_INITS_IN_ANY_CASE = frozenset({"gaussian", "mica"})
_BASE_CHANGING_INITS = ("pissa", "olora", "corda", "loftq")

_UNSUPPORTED = {
    "alora_invocation_tokens": "vLLM refuses Activated LoRA",
    "layer_replication": "vLLM refuses layer replication",
    "use_bdlora": "vLLM refuses block-diagonal LoRA",
    "use_qalora": "vLLM refuses QALoRA",
    "trainable_token_indices": "vLLM never adds trained token embeddings",
    "megatron_config": "vLLM does not read it, PEFT builds other layers with it",
    "arrow_config": "vLLM does not read it, PEFT routes between adapters with it",
    "kasa_config": "vLLM does not read it, PEFT computes otherwise with it",
    "monteclora_config": "PEFT saves tensors of its own along, which vLLM refuses",
    "velora_config": "PEFT saves tensors of its own along, which vLLM refuses",
}  # fmt: skip

# PEFT makes an object of each, and refuses what is neither an object nor null.
_SUB_CONFIGS = frozenset({"use_bdlora", "arrow_config", "kasa_config", "monteclora_config", "velora_config"})
_HARMLESS_SUB_CONFIGS = ("eva_config", "corda_config", "lora_ga_config")

_CLASSIFIERS = ("classifier", "score")
_OTHER_TASKS = {"SEQ_CLS", "SEQ_2_SEQ_LM", "TOKEN_CLS", "QUESTION_ANS", "FEATURE_EXTRACTION"}

_READ_ELSEWHERE = {
    "r", "lora_alpha", "use_rslora", "target_modules", "exclude_modules", "layers_to_transform", "layers_pattern",
    "rank_pattern", "alpha_pattern", "base_model_name_or_path", "lora_dropout", "peft_type", "use_dora", "bias",
    "lora_bias", "modules_to_save", "init_lora_weights", "task_type", "ensure_weight_tying", "target_parameters",
}  # fmt: skip
_NOT_FIELDS = frozenset({"self", "cls"})
# They change training, or where files are found, and no answer.
_HARMLESS = {
    "auto_mapping", "corda_config", "eva_config", "fan_in_fan_out", "inference_mode", "loftq_config", "lora_ga_config",
    "megatron_core", "modules_to_tie", "peft_version", "qalora_group_size", "revision", "runtime_config",
    "target_modules_to_tie",
}  # fmt: skip


def check_variant(config: LoraConfig, base: Base | None, findings: Findings) -> None:
    """Report every field that makes this something else than a LoRA which vLLM computes as PEFT does."""
    raw = config.raw
    _check_kind(raw, findings)
    _check_init(config, findings)
    _check_parameters(raw.get("target_parameters"), base, findings)
    for name, reason in _UNSUPPORTED.items():
        if _is_given(name, raw.get(name)):
            findings.error(
                Code.UNSUPPORTED_VARIANT,
                name,
                found=repr_bounded(raw[name]),
                expected=f"not set ({reason})",
                fix=explain_text(raw[name], _RETRAIN),
            )
    for name in _HARMLESS_SUB_CONFIGS:
        if raw.get(name) is not None and not isinstance(raw[name], dict):
            findings.error(
                Code.MALFORMED_CONFIG,
                name,
                found=repr_bounded(raw[name]),
                expected="an object, or null",
                fix=f"correct it in {CONFIG}",
            )
    _check_eva(raw.get("eva_config"), findings)
    for name in _NOT_FIELDS & raw.keys():
        findings.error(
            Code.MALFORMED_CONFIG,
            name,
            found=repr_bounded(raw[name]),
            expected="no such field: Python's own name for what PEFT makes of the config, which it can't have twice",
            fix=f"leave it out of {CONFIG}",
        )
    for name in raw.keys() - _NOT_FIELDS - _READ_ELSEWHERE - _HARMLESS - _UNSUPPORTED.keys():
        if raw[name]:
            findings.warning(
                Code.UNKNOWN_FIELD,
                name,
                found=repr_bounded(raw[name]),
                expected="a field that vLLM or PEFT 0.21 knows",
                fix="make sure that the adapter answers as it should without it",
            )


def _check_parameters(targets: object, base: Base | None, findings: Findings) -> None:
    """Report LoRAs on parameters; PEFT passes over those of experts on a base that has none."""
    if not targets and not isinstance(targets, str):
        return
    absent = (
        base is not None
        and base.family is not None
        and not any(_is_of_experts(name) for names in (base.modules, base.others, base.unserved) for name in names)
        and isinstance(targets, list)
        and all(isinstance(target, str) and _is_of_experts(target.rpartition(".")[0]) for target in targets)
    )
    report = findings.warning if absent else findings.error
    report(
        Code.UNSUPPORTED_VARIANT,
        "target_parameters",
        found=repr_bounded(targets),
        expected="not set (vLLM takes LoRAs on parameters for few architectures, by flags of its own)",
        fix=f"leave it out of {CONFIG}: the base has no experts" if absent else _RETRAIN,
    )


def _is_of_experts(module: str) -> bool:
    # Other parameters are not all known: PEFT would also find those of the LoRAs that it has just put in.
    return "experts" in module.split(".")


def _is_given(name: str, value: object) -> bool:
    """Tell whether PEFT builds a variant by a field. An empty sub-config is one: it fills in defaults."""
    if name in _SUB_CONFIGS:
        return value is not None
    return (value is not None and value != {}) if name == "trainable_token_indices" else bool(value)


def _check_kind(raw: dict[str, object], findings: Findings) -> None:
    _check_task(raw.get("task_type"), findings)
    if raw.get("use_dora"):
        findings.error(
            Code.DORA_NOT_SUPPORTED,
            "use_dora",
            found=repr_bounded(raw["use_dora"]),
            expected="false (vLLM has no DoRA)",
            fix=explain_text(raw["use_dora"], _MERGE),
        )
    for name, expected, given, fix in (
        ("bias", '"none"', raw.get("bias", "none") != "none", _bias_fix(raw.get("bias"))),
        ("lora_bias", "false", bool(raw.get("lora_bias")), explain_text(raw.get("lora_bias"), _NO_BIAS)),
    ):
        if given:
            findings.error(
                Code.BIAS_NOT_SUPPORTED,
                name,
                found=repr_bounded(raw[name]),
                expected=expected,
                fix=fix,
            )
    _check_modules_to_save(raw.get("modules_to_save"), findings)


def _bias_fix(bias: object) -> str:
    is_none = bias is None or (isinstance(bias, str) and bias.lower() == "none")
    return f'write "none" in {CONFIG}' if is_none else _NO_BIAS


def _check_modules_to_save(modules: object, findings: Findings) -> None:
    if not modules:
        return
    # A base that generates text has no classifier: PEFT and vLLM find none to replace. Its tensors would be refused.
    of_classifier = isinstance(modules, list) and all(name in _CLASSIFIERS for name in modules)
    report = findings.warning if of_classifier else findings.error
    report(
        Code.MODULES_TO_SAVE_NOT_SUPPORTED,
        "modules_to_save",
        found=repr_bounded(modules),
        expected="not set (vLLM serves no whole modules beside a base)",
        fix="make sure that it generates text" if of_classifier else explain_text(modules, _MERGE),
    )


def _check_task(task: object, findings: Findings) -> None:
    if task in (None, "CAUSAL_LM"):
        return
    if isinstance(task, str) and task in _OTHER_TASKS:
        findings.warning(
            Code.NOT_CHECKED,
            "task_type",
            found=repr_bounded(task),
            expected='"CAUSAL_LM"',
            fix="make sure that it generates text",
        )
        return
    findings.error(
        Code.UNSUPPORTED_VARIANT,
        "task_type",
        found=repr_bounded(task),
        expected='"CAUSAL_LM"',
        fix="PEFT knows no such task: correct it",
    )


def _check_init(config: LoraConfig, findings: Findings) -> None:
    init = config.init
    if init is True or (not init and not isinstance(init, str)):
        return
    text = init.lower() if isinstance(init, str) else ""
    if (text == init and text in _PLAIN_INITS) or text in _PLAIN_INITS_IN_ANY_CASE:
        odd = [rank for rank in (config.rank, *config.rank_pattern.values()) if rank % 2]
        if init == "orthogonal" and odd:
            findings.error(
                Code.MALFORMED_CONFIG,
                "init_lora_weights",
                found=f"orthogonal, with a rank of {odd[0]}",
                expected="an even rank (PEFT refuses others)",
                fix=f"write true, in {CONFIG}: the tensors replace what it starts with",
            )
        return
    changes_base = text.startswith(_BASE_CHANGING_INITS)
    findings.error(
        Code.INIT_NOT_SUPPORTED if changes_base else Code.UNSUPPORTED_VARIANT,
        "init_lora_weights",
        found=repr_bounded(init),
        expected="an init that leaves the base's weights alone",
        fix=_init_fix(text) if changes_base else _plain_init(text) or explain_text(init, _RETRAIN),
    )


def _check_eva(config: object, findings: Findings) -> None:
    """PEFT refuses figures that EVA can't begin with, also where it begins otherwise, and when training is over."""
    if not isinstance(config, dict):
        return
    for name, default, low, high in (("rho", 2.0, 1.0, math.inf), ("tau", 0.99, 0.0, 1.0)):
        value = config.get(name, default)
        if not isinstance(value, int | float) or not low <= value <= high:
            findings.error(
                Code.MALFORMED_CONFIG,
                f"eva_config.{name}",
                found=repr_bounded(value),
                expected=f"a number from {low:g} to {high:g}",
                fix=f"correct it in {CONFIG}",
            )


def _plain_init(init: str) -> str | None:
    return f"write true in {CONFIG}, without quotes" if init == "true" else None


def _init_fix(init: str) -> str:
    if init.startswith("loftq"):
        return "train on the base that is served; LoftQ's own, quantised base is not"
    return (
        "convert it to a plain LoRA with the initial adapter (save_pretrained with "
        "path_initial_model_for_weight_conversion; the rank doubles), or serve it merged"
    )
