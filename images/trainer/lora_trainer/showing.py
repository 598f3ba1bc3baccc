"""What `--print-defaults` and `--dry-run` print: every default of the spec, and what the libraries get of one."""

from __future__ import annotations

from typing import Any, Final

import yaml
from pydantic import BaseModel

from lora_operator.api.served_lora import lora_arguments
from lora_trainer import building, recipe, spec
from lora_trainer.by_hand import TrainSpec
from lora_trainer.machine import Machine

TOKENS: Final = "_token"


def defaults() -> str:
    """Return every field of a spec that has a default, with it; of groups that may be left out, too."""
    return yaml.safe_dump(_defaults(TrainSpec), sort_keys=False)


def effective(wanted: TrainSpec, device: Machine) -> str:
    """Return what trl and peft would be given on this device, every argument with its value."""
    building.check_extra_args(wanted)
    config = building.config(wanted, output_dir="state", accelerator=device.accelerator)
    shown = {name: value for name, value in config.to_dict().items() if not name.endswith(TOKENS)}
    groups = {
        type(config).__name__: shown,
        "LoraConfig": lora_arguments(wanted.lora),
        "BitsAndBytesConfig": recipe.quantization_arguments(wanted, accelerator=device.accelerator),
    }
    return yaml.safe_dump(_plain(groups), sort_keys=True)


def _defaults(model: type[BaseModel]) -> dict[str, Any]:
    found, groups = {}, spec.groups(model)
    for name, field in model.model_fields.items():
        key = field.alias or name
        if key in groups:
            found[key] = _defaults(groups[key])
        elif not field.is_required():
            found[key] = _plain(field.get_default(call_default_factory=True))
    return {key: value for key, value in found.items() if value not in (None, {})}


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(name): _plain(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple | set):
        return [_plain(inner) for inner in value]
    if value is None or type(value) in {bool, int, float, str}:
        return value
    return str(value)
