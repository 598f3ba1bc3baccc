"""Turns a spec into the arguments of trl's SFTConfig and peft's LoraConfig. Pure: neither library is imported.

`training.extraArgs` passes anything else on to SFTConfig, but for what the spec says elsewhere, what the program itself
must decide, and what SFTConfig does not know.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Any, Final

import yaml

from lora_operator.api.lora import InitLoraWeights
from lora_operator.protocol.training import Reason
from lora_trainer.result import Refusal
from lora_trainer.spec import ALL_LINEAR, TrainSpec, suggestion

RENAMED: Final[Mapping[str, str]] = {
    "max_seq_length": "training.maxLength",
    "group_by_length": 'train_sampling_strategy: "group_by_length"',
    "warmup_ratio": "training.warmupSteps",
    "evaluation_strategy": "eval_strategy",
    "torch_dtype": "baseModel.dtype",
    "dtype": "baseModel.dtype",
    "no_cuda": "use_cpu",
    "per_gpu_train_batch_size": "training.perDeviceTrainBatchSize",
    "tokenizer": "baseModel.name",
    "num_of_sequences": "training.maxLength",
}
"""Names of 2024 that are gone from the libraries, and what says the same today."""

_SPEC_SAYS: Final[Mapping[str, str]] = {
    "num_train_epochs": "training.numTrainEpochs",
    "max_steps": "training.maxSteps",
    "per_device_train_batch_size": "training.perDeviceTrainBatchSize",
    "gradient_accumulation_steps": "training.gradientAccumulationSteps",
    "learning_rate": "training.learningRate",
    "lr_scheduler_type": "training.lrSchedulerType",
    "warmup_steps": "training.warmupSteps",
    "weight_decay": "training.weightDecay",
    "max_length": "training.maxLength",
    "packing": "training.packing",
    "gradient_checkpointing": "training.gradientCheckpointing",
    "seed": "training.seed",
    "logging_steps": "training.loggingSteps",
    "bf16": "baseModel.dtype",
    "fp16": "baseModel.dtype",
    "model_init_kwargs": "baseModel.dtype",
    "dataset_text_field": "dataset.format",
    "output_dir": "output.hub",
    "push_to_hub": "output.hub",
    "hub_model_id": "output.hub.repo",
    "hub_private_repo": "output.hub.private",
    "hub_token": "output.hub.tokenSecretRef",
    "hub_strategy": "output.hub",
    "hub_revision": "output.hub",
}

_PROGRAM_DECIDES: Final[Mapping[str, str]] = {
    "chat_template_path": "it may train lm_head and new tokens as whole modules, which no engine serves beside a base",
    "trust_remote_code": "code that comes with a model is not run",
    "enable_jit_checkpoint": "an interrupted training would look done, and half an adapter be published",
    "resume_from_checkpoint": "there are no checkpoints to resume from",
    "save_strategy": "there is no volume for checkpoints",
    "save_steps": "there is no volume for checkpoints",
    "load_best_model_at_end": "there is no volume for checkpoints",
    "eval_strategy": "there is no data set to evaluate on",
    "disable_tqdm": "the program shows progress itself",
    "use_cpu": "the program trains on the accelerator that it finds",
}


def check_extra_args(extra: Mapping[str, int | str], *, known: Collection[str]) -> None:
    """Refuse a key of `training.extraArgs` that is the spec's, the program's, or none of SFTConfig's (`known`)."""
    for key in extra:
        field = f"training.extraArgs.{key}"
        if key in _SPEC_SAYS:
            raise Refusal(Reason.CONFIG_INVALID, f"{field}: say it in {_SPEC_SAYS[key]}")
        if key in _PROGRAM_DECIDES:
            raise Refusal(Reason.CONFIG_INVALID, f"{field}: may not be set, {_PROGRAM_DECIDES[key]}")
        if key in known:
            continue
        if key in RENAMED:
            raise Refusal(Reason.CONFIG_INVALID, f"{field}: is gone from trl and transformers; use {RENAMED[key]}")
        near = suggestion(key, sorted(known))
        raise Refusal(Reason.CONFIG_INVALID, f"{field}: trl's SFTConfig has no such argument{near}")


def sft_arguments(spec: TrainSpec, *, output_dir: str, dtype: str, accelerator: bool, bar: bool) -> dict[str, Any]:
    """Return the arguments of SFTConfig: the spec's, the program's, then `training.extraArgs`."""
    training = spec.training
    arguments: dict[str, Any] = {
        "output_dir": output_dir,
        "max_steps": training.max_steps if training.max_steps is not None else -1,
        "num_train_epochs": training.num_train_epochs or 3,
        "per_device_train_batch_size": training.per_device_train_batch_size,
        "gradient_accumulation_steps": training.gradient_accumulation_steps,
        "learning_rate": float(training.learning_rate),
        "lr_scheduler_type": _snake(training.lr_scheduler_type),
        "warmup_steps": training.warmup_steps,
        "weight_decay": float(training.weight_decay),
        "max_length": training.max_length,
        "packing": training.packing,
        "gradient_checkpointing": training.gradient_checkpointing,
        "seed": training.seed,
        "logging_steps": training.logging_steps,
        "model_init_kwargs": {"dtype": dtype},
        "bf16": accelerator and dtype == "bfloat16",
        "use_cpu": not accelerator,
        "dataloader_pin_memory": accelerator,
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": not bar,
    }
    return arguments | {key: _scalar(value) for key, value in training.extra_args.items()}


def lora_arguments(spec: TrainSpec) -> dict[str, Any]:
    """Return the arguments of LoraConfig. The base's name is not among them: peft puts this machine's folder there."""
    lora = spec.lora
    all_linear = lora.target_modules == (ALL_LINEAR,)
    plain_start = lora.init_lora_weights is InitLoraWeights.DEFAULT
    return {
        "task_type": "CAUSAL_LM",
        "r": lora.r,
        "lora_alpha": lora.lora_alpha,
        "lora_dropout": float(lora.lora_dropout),
        "target_modules": ALL_LINEAR if all_linear else list(lora.target_modules),
        "bias": lora.bias.value.lower(),
        "use_rslora": lora.use_rslora,
        "init_lora_weights": plain_start or _snake(lora.init_lora_weights),
    }


def _snake(name: str) -> str:
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).lower()


_NUMBER: Final = re.compile(r"[-+]?[0-9]+([.][0-9]*)?([eE][-+]?[0-9]+)?")


def _scalar(value: int | str) -> Any:
    """Read a string as a YAML scalar. YAML 1.1 takes `1e-8` for a text; nobody who writes it means one."""
    if isinstance(value, int):
        return value
    if _NUMBER.fullmatch(value) and not value.lstrip("-+").isdigit():
        return float(value)
    try:
        return yaml.safe_load(value)
    except yaml.YAMLError:
        return value
