"""What `--print-defaults` and `--dry-run` print: every default of the spec, and what the libraries get of one."""

from __future__ import annotations

from typing import Any, Final

import yaml
from pydantic import BaseModel

from lora_operator.api.lora import Quantization
from lora_operator.api.served_lora import lora_arguments
from lora_trainer import building, check, recipe
from lora_trainer.by_hand import TrainDataset, TrainLora, TrainSpec
from lora_trainer.machine import Machine

TOKENS: Final = "_token"


def defaults() -> str:
    """Return every field of a spec that has a default, with it."""
    groups: dict[str, Any] = {
        "method": TrainSpec.model_fields["method"].default.value,
        "dataset": _defaults(TrainDataset),
        "lora": _defaults(TrainLora),
        "quantization": _defaults(Quantization),
        "training": _defaults(TrainSpec.model_fields["training"].default.__class__),
    }
    return yaml.safe_dump(groups, sort_keys=False)


def effective(spec: TrainSpec, device: Machine) -> str:
    """Return what trl and peft would be given on this device, every argument with its value."""
    config = building.config_class(spec)
    arguments = config(**check.effective_arguments(spec, device)).to_dict()
    shown = {name: value for name, value in arguments.items() if not name.endswith(TOKENS)}
    groups = {
        config.__name__: shown,
        "LoraConfig": lora_arguments(spec.lora),
        "BitsAndBytesConfig": recipe.quantization_arguments(spec, accelerator=device.accelerator),
    }
    return yaml.safe_dump(_plain(groups), sort_keys=True)


def _defaults(model: type[BaseModel]) -> dict[str, Any]:
    found = {}
    for name, field in model.model_fields.items():
        if field.is_required():
            continue
        value = field.get_default(call_default_factory=True)
        found[field.alias or name] = _plain(value)
    return found


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(name): _plain(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple | set):
        return [_plain(inner) for inner in value]
    if value is None or type(value) in {bool, int, float, str}:
        return value
    return str(value)
