"""`training.extraArgs`: which arguments of trl's configs may be given there, and where the others are said. Pure."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from typing import Any, Final

from pydantic import TypeAdapter, ValidationError

from lora_operator.protocol.training import Reason
from lora_trainer.result import Refusal
from lora_trainer.spec import suggestion

RENAMED: Final[Mapping[str, str]] = {
    "max_seq_length": "training.maxLength",
    "max_prompt_length": "training.maxLength",
    "max_completion_length": "training.maxLength",
    "max_target_length": "training.maxLength",
    "group_by_length": 'train_sampling_strategy: "group_by_length"',
    "warmup_ratio": "training.warmupSteps",
    "evaluation_strategy": "evaluation",
    "torch_dtype": "baseModel.dtype",
    "dtype": "baseModel.dtype",
    "no_cuda": "nothing: the program trains on the accelerator that it finds",
    "per_gpu_train_batch_size": "training.perDeviceTrainBatchSize",
    "tokenizer": "baseModel.name",
    "num_of_sequences": "training.maxLength",
    "per_gpu_eval_batch_size": "per_device_eval_batch_size",
    "overwrite_output_dir": "another --output",
    "save_safetensors": "nothing: the adapter is always safetensors",
    "logging_dir": "the environment variable TENSORBOARD_LOGGING_DIR",
    "push_to_hub_token": "output.hub.tokenSecretRef",
    "use_dora": "lora: DoRA is not among the adapters that vLLM serves",
    "data_collator": "dataset.format: PromptCompletion, or training.assistantOnlyLoss",
    "response_template": "training.assistantOnlyLoss, or dataset.format: PromptCompletion",
    "peft_config": "lora",
    "load_in_4bit": "quantization",
    "load_in_8bit": "quantization, which is of 4 bits",
    "use_mps_device": "nothing: the program trains on the accelerator that it finds",
    "fp16_backend": "baseModel.dtype",
    "half_precision_backend": "baseModel.dtype",
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
    "max_grad_norm": "training.maxGradNorm",
    "optim": "training.optim",
    "assistant_only_loss": "training.assistantOnlyLoss",
    "completion_only_loss": "training.completionOnlyLoss",
    "beta": "training.beta",
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
    "save_strategy": "checkpoint.intervalSeconds",
    "save_steps": "checkpoint.intervalSeconds",
    "save_total_limit": "checkpoint.keep",
    "load_best_model_at_end": "evaluation.keep",
    "metric_for_best_model": "evaluation.metric",
    "greater_is_better": "evaluation.better",
    "eval_strategy": "evaluation.schedule",
    "eval_steps": "evaluation.schedule",
}

_PROGRAM_DECIDES: Final[Mapping[str, str]] = {
    "chat_template_path": "it may train lm_head and new tokens as whole modules, which no engine serves beside a base",
    "trust_remote_code": "code that comes with a model is not run",
    "enable_jit_checkpoint": "an interrupted training would look done, and half an adapter be published",
    "resume_from_checkpoint": "the newest complete checkpoint is found without it",
    "ignore_data_skip": "a training that goes on would see rows again",
    "save_only_model": "a training could not go on from its checkpoints",
    "disable_tqdm": "the program shows progress itself",
    "fsdp": "each process holds the whole base",
    "fsdp_config": "each process holds the whole base",
    "deepspeed": "each process holds the whole base",
    "do_train": "the program trains",
    "do_eval": "the program evaluates where there is evaluation",
    "do_predict": "the program trains, and predicts nothing",
    "use_cpu": "the program trains on the accelerator that it finds",
}


_RANGES: Final[Mapping[str, tuple[float, float]]] = {
    "adam_beta1": (0, 1),
    "adam_beta2": (0, 1),
    "adam_epsilon": (0, math.inf),
    "dataloader_num_workers": (0, math.inf),
    "dataloader_prefetch_factor": (1, math.inf),
    "eval_accumulation_steps": (1, math.inf),
    "label_smoothing_factor": (0, 1),
    "neftune_noise_alpha": (0, math.inf),
    "pad_to_multiple_of": (1, math.inf),
    "per_device_eval_batch_size": (1, math.inf),
}
"""From the one, to below the other: torch and transformers say so in use, or not at all."""

_LOG_LEVELS: Final = ("passive", "detail", "debug", "info", "warning", "error", "critical")
_WORDS: Final[Mapping[str, Sequence[str]]] = {
    "SFTConfig.loss_type": ("nll", "dft", "chunked_nll"),
    "DPOConfig.loss_type": (
        *("sigmoid", "sigmoid_norm", "hinge", "ipo", "exo_pair", "nca_pair", "robust", "bco_pair", "sppo_hard"),
        *("aot", "aot_unpaired", "apo_zero", "apo_down", "discopop", "sft"),
    ),
    "log_level": _LOG_LEVELS,
    "log_level_replica": _LOG_LEVELS,
    "train_sampling_strategy": ("random", "sequential", "group_by_length", "batch_rebalance"),
}
"""Arguments that are strings to their config, and few words to who reads them."""

NO_TRACKERS: Final = ("none", "all", None)
"""None at all, or whatever there is."""
PACKAGES: Final[Mapping[str, str]] = {"azure_ml": "azureml-mlflow", "comet_ml": "comet-ml", "flyte": "flytekit"}
"""What brings a tracker, where that has another name."""


def check(extra: Mapping[str, object], *, known: Mapping[str, Any], config: str) -> None:
    """Refuse a key of `training.extraArgs` that is the spec's, the program's, or none of `config`'s, or a wrong value.

    `known` has the arguments of `config` and their types. Its own checks see few of them, and most only in use.
    """
    for key, value in extra.items():
        field = f"training.extraArgs.{key}"
        if key in _SPEC_SAYS:
            raise Refusal(Reason.CONFIG_INVALID, f"{field}: say it in {_SPEC_SAYS[key]}")
        if key in _PROGRAM_DECIDES:
            raise Refusal(Reason.CONFIG_INVALID, f"{field}: may not be set, {_PROGRAM_DECIDES[key]}")
        if key in known:
            _check_value(field, value, known[key])
            _check_use(field, value, limits=_RANGES.get(key), words=_WORDS.get(key) or _WORDS.get(f"{config}.{key}"))
            continue
        if key in RENAMED:
            raise Refusal(Reason.CONFIG_INVALID, f"{field}: is gone from trl and transformers; use {RENAMED[key]}")
        near = suggestion(key, sorted(known))
        raise Refusal(Reason.CONFIG_INVALID, f"{field}: trl's {config} has no such argument{near}")


def _check_value(field: str, value: object, wanted: Any) -> None:
    try:
        TypeAdapter(wanted).validate_python(value, strict=True)
    except ValidationError as error:
        faults = dict.fromkeys(fault["msg"] for fault in error.errors())
        raise Refusal(Reason.CONFIG_INVALID, f"{field}: {' or '.join(faults)}, not {value!r}") from error


def _check_use(field: str, value: object, *, limits: tuple[float, float] | None, words: Sequence[str] | None) -> None:
    if limits is not None and isinstance(value, int | float) and not limits[0] <= value < limits[1]:
        above = "" if math.isinf(limits[1]) else f", and below {limits[1]}"
        raise Refusal(Reason.CONFIG_INVALID, f"{field}: must be {limits[0]} or more{above}, not {value!r}")
    for word in (value if isinstance(value, list) else [value]) if words is not None else ():
        if words is not None and word not in words:
            near = suggestion(str(word), words)
            raise Refusal(Reason.CONFIG_INVALID, f"{field}: {word!r} is none of {', '.join(words)}{near}")


def check_trackers(asked: object, *, installed: Collection[str], known: Collection[str]) -> None:
    """Refuse a tracker of `report_to` whose library is not here: transformers would say so in the midst of it all.

    `known` are those that transformers could report to.
    """
    field, names = "training.extraArgs.report_to", asked if isinstance(asked, list) else [asked]
    missing = [str(name) for name in names if name not in {*installed, *NO_TRACKERS}]
    for name in missing:
        if name not in known:
            near = suggestion(name, sorted(known))
            message = f"{field}: transformers knows no tracker {name!r}, but {', '.join(sorted(known))}{near}"
            raise Refusal(Reason.CONFIG_INVALID, message)
    if missing:
        packages = " ".join(PACKAGES.get(name, name) for name in missing)
        raise Refusal(
            Reason.CONFIG_INVALID,
            f"{field}: {', '.join(missing)} is not installed in the trainer's environment, which has "
            f"{', '.join(sorted(installed)) or 'no tracker'}; install it there: pip install {packages}",
        )
