"""The base without its weights: built by transformers from config.json on torch's meta device, which holds no numbers.

Any architecture that transformers knows can be asked so: which modules an adapter finds, and how many parameters there
are. Seconds, and no download.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from lora_operator.api.served_lora import lora_arguments
from lora_operator.protocol.training import Reason
from lora_trainer import positions
from lora_trainer.base import BaseModel
from lora_trainer.by_hand import TrainSpec
from lora_trainer.positions import Positions
from lora_trainer.result import Refusal

HEADS: Final = ("lm_head", "embed_out", "output")
"""What transformers leaves in full precision when it quantises: the last module."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Outline:
    """What the memory estimate needs to know of a model and the adapter on it."""

    model_type: str
    parameters: int
    """Of the base, all of them."""
    linear_parameters: int
    """Of the weights that can be quantised: linear modules but the head."""
    adapter_parameters: int
    hidden: int
    inner: int
    layers: int
    vocabulary: int
    positions: Positions
    warnings: Sequence[str] = ()


def of(spec: TrainSpec, base: BaseModel) -> Outline:
    """Return the outline of the base with the spec's adapter, or refuse what doesn't fit on it by its field."""
    import torch

    model = _on_meta(base)
    config = model.config.get_text_config()
    parameters = sum(parameter.numel() for parameter in model.parameters())
    linear = sum(
        module.weight.numel()
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear) and name.rpartition(".")[2] not in HEADS
    )
    return Outline(
        model_type=str(config.model_type),
        parameters=parameters,
        linear_parameters=linear,
        adapter_parameters=_adapter_parameters(spec, model),
        hidden=int(config.hidden_size),
        inner=_inner(config),
        layers=int(config.num_hidden_layers),
        vocabulary=int(config.vocab_size),
        positions=_positions(model),
        warnings=[said] if (said := _quantised(base, config)) else [],
    )


def positions_of(base: BaseModel) -> Positions:
    """Return the positions of the base."""
    return _positions(_on_meta(base))


def _positions(model: Any) -> Positions:
    import torch

    tables = [name for name, module in model.named_modules() if isinstance(module, torch.nn.Embedding)]
    tables += [name for name, _ in model.named_buffers()]
    return positions.of(model.config.get_text_config().to_dict(), tables)


def _quantised(base: BaseModel, config: Any) -> str:
    given = getattr(config, "quantization_config", None)
    if given is None:
        return ""
    kind = given.get("quant_method") if isinstance(given, dict) else given.quant_method
    return f"{base.field}: {base.name} is quantised as it lies there ({kind}): not every such base can be trained on"


def _on_meta(base: BaseModel) -> Any:
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    try:
        config = AutoConfig.from_pretrained(base.folder)
        with torch.device("meta"):
            return AutoModelForCausalLM.from_config(config)
    except (OSError, ValueError, KeyError, TypeError) as error:
        message = f"baseModel.name: {base.name} is no language model that transformers knows: {_line(error)}"
        raise Refusal(Reason.BASE_MODEL_UNAVAILABLE, message) from error


def _adapter_parameters(spec: TrainSpec, model: Any) -> int:
    """Put the adapter on, still without numbers: peft says itself where it finds no module, or none of its kind."""
    from peft import LoraConfig, get_peft_model

    if spec.lora.init_from is not None:
        return 0  # its own file says, and is small beside the base
    arguments = lora_arguments(spec.lora) | {"init_lora_weights": True}
    try:
        adapted = get_peft_model(model, LoraConfig(**arguments), low_cpu_mem_usage=True)
    except ValueError as error:
        raise Refusal(Reason.CONFIG_INVALID, f"lora.targetModules: {_line(error)}") from error
    return sum(parameter.numel() for parameter in adapted.parameters() if parameter.requires_grad)


def _inner(config: Any) -> int:
    """Return the width inside the MLP, by the names that families have for it."""
    values = config.to_dict()
    named = (values.get(name) for name in ("intermediate_size", "ffn_dim", "n_inner"))
    return next((int(value) for value in named if value is not None), 4 * int(config.hidden_size))


def _line(error: BaseException) -> str:
    return str(error).splitlines()[0][:400]
