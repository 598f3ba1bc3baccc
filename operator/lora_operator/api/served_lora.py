"""What `adapter_config.json` of the result will say, from a spec's `lora`: what an engine is asked about beforehand.

The operator's pre-flight and the trainer judge by the same words. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from lora_operator.api.lora import CONVERTED, InitLoraWeights, Lora

ALL_LINEAR: Final = "all-linear"

INITS: Final[Mapping[InitLoraWeights, bool | str]] = {
    InitLoraWeights.DEFAULT: True,
    InitLoraWeights.GAUSSIAN: "gaussian",
    InitLoraWeights.ORTHOGONAL: "orthogonal",
    InitLoraWeights.PISSA: "pissa",
    InitLoraWeights.PISSA_NITER_16: "pissa_niter_16",
    InitLoraWeights.OLORA: "olora",
}
"""peft's words."""


def lora_arguments(lora: Lora) -> dict[str, Any]:
    """Return the arguments of peft's LoraConfig that start the training."""
    arguments: dict[str, Any] = {
        "task_type": "CAUSAL_LM",
        "r": lora.r,
        "lora_alpha": lora.lora_alpha,
        "lora_dropout": float(lora.lora_dropout),
        "target_modules": ALL_LINEAR if lora.target_modules == (ALL_LINEAR,) else list(lora.target_modules),
        "bias": lora.bias.value.lower(),
        "use_rslora": lora.use_rslora,
        "init_lora_weights": INITS[lora.init_lora_weights],
    }
    optional = {
        "exclude_modules": list(lora.exclude_modules or ()),
        "rank_pattern": dict(lora.rank_pattern or {}),
        "alpha_pattern": dict(lora.alpha_pattern or {}),
    }
    return arguments | {name: value for name, value in optional.items() if value}


def served_config(lora: Lora) -> dict[str, Any]:
    """Return the config of what is published: what is converted has twice the rank, and alpha with it."""
    config = {"peft_type": "LORA", **lora_arguments(lora)}
    if lora.init_lora_weights not in CONVERTED:
        return config
    config |= {"init_lora_weights": True, "r": 2 * lora.r}
    config["lora_alpha"] = lora.lora_alpha * (2**0.5 if lora.use_rslora else 2)
    for pattern in ("rank_pattern", "alpha_pattern"):
        if pattern in config:
            config[pattern] = {name: 2 * value for name, value in config[pattern].items()}
    return config
