"""Turns a spec into the arguments of trl's SFTConfig or DPOConfig. Pure: no library is imported.

`training.extraArgs` passes anything else on to it, but for what the spec says elsewhere, what the program itself must
decide (`extra_args.py`), and what the config does not know.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

import yaml

from lora_operator.api.training import Method, Optim
from lora_trainer.spec import TrainSpec, torch_name

OPTIMS: Final[Mapping[Optim, str]] = {
    Optim.ADAMW_TORCH_FUSED: "adamw_torch_fused",
    Optim.ADAMW_TORCH: "adamw_torch",
    Optim.ADAMW_8BIT: "adamw_bnb_8bit",
    Optim.PAGED_ADAMW_32BIT: "paged_adamw_32bit",
    Optim.PAGED_ADAMW_8BIT: "paged_adamw_8bit",
    Optim.ADAFACTOR: "adafactor",
    Optim.SGD: "sgd",
}
PAGED: Final = (Optim.PAGED_ADAMW_32BIT, Optim.PAGED_ADAMW_8BIT)
"""They page to the host's memory by CUDA's managed memory."""


def optimiser(spec: TrainSpec, *, accelerator: bool) -> tuple[Optim, str]:
    """Return the optimiser that this machine has, and what is to be said where it is not the one that was asked for."""
    wanted = spec.training.optim
    if wanted in PAGED and not accelerator:
        said = f"training.optim: {wanted.value} needs an accelerator; {Optim.ADAMW_TORCH.value} is used on this CPU"
        return Optim.ADAMW_TORCH, said
    return wanted, ""


def arguments(spec: TrainSpec, *, output_dir: str, dtype: str, accelerator: bool, bar: bool) -> dict[str, Any]:
    """Return the arguments of SFTConfig or DPOConfig: the spec's, the program's, then `training.extraArgs`."""
    training = spec.training
    found: dict[str, Any] = {
        "output_dir": output_dir,
        "max_steps": training.max_steps if training.max_steps is not None else -1,
        "num_train_epochs": training.num_train_epochs or 3,
        "per_device_train_batch_size": training.per_device_train_batch_size,
        "gradient_accumulation_steps": training.gradient_accumulation_steps,
        "learning_rate": float(training.learning_rate),
        "lr_scheduler_type": _snake(training.lr_scheduler_type),
        "warmup_steps": training.warmup_steps,
        "weight_decay": float(training.weight_decay),
        "max_grad_norm": float(training.max_grad_norm),
        "optim": OPTIMS[optimiser(spec, accelerator=accelerator)[0]],
        "max_length": training.max_length,
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
    return found | _of_method(spec) | {key: scalar(value) for key, value in training.extra_args.items()}


def _of_method(spec: TrainSpec) -> dict[str, Any]:
    training = spec.training
    if spec.method is Method.DPO:
        return {} if training.beta is None else {"beta": float(training.beta)}
    return {
        "packing": training.packing,
        "assistant_only_loss": training.assistant_only_loss,
        "completion_only_loss": training.completion_only_loss,
    }


def quantization_arguments(spec: TrainSpec, *, accelerator: bool) -> dict[str, Any] | None:
    """Return the arguments of BitsAndBytesConfig; None for a base as it is."""
    wanted = spec.quantization
    if wanted is None:
        return None
    return {
        "load_in_4bit": True,
        "bnb_4bit_quant_type": wanted.bnb_4bit_quant_type.value.lower(),
        "bnb_4bit_use_double_quant": wanted.bnb_4bit_use_double_quant,
        "bnb_4bit_compute_dtype": torch_name(wanted.bnb_4bit_compute_dtype, accelerator=accelerator),
    }


def _snake(name: str) -> str:
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).lower()


_NUMBER: Final = re.compile(r"[-+]?[0-9]+([.][0-9]*)?([eE][-+]?[0-9]+)?")


def scalar(value: int | str) -> Any:
    """Return what a value of `training.extraArgs` means: a string is read as a YAML scalar.

    YAML 1.1 takes `1e-8` for a text; nobody who writes it means one.
    """
    if isinstance(value, int):
        return value
    if _NUMBER.fullmatch(value) and not value.lstrip("-+").isdigit():
        return float(value)
    try:
        return yaml.safe_load(value)
    except yaml.YAMLError:
        return value
