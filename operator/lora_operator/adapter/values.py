"""The rules over the values: finite, and small enough to stay so when the engine casts and scales them.

One adapter's NaN or Inf spoils the base's and its neighbours' answers for dozens of requests, also after its unload.
"""

import math
from collections.abc import Mapping

from .config import LoraConfig
from .engine import EngineLimits
from .files import Adapter
from .findings import Code, Findings
from .patterns import Patterns
from .tensors import Module

# Trained weights stay far below; their products stay below float32's limit even through a layer of 100,000 inputs.
_MAGNITUDE_LIMIT = 1e6
_FLOAT16_LIMIT = 65504.0


def check_values(  # noqa: PLR0913, PLR0917 - values meet config and engine here
    modules: Mapping[str, Module],
    config: LoraConfig,
    patterns: Patterns,
    adapter: Adapter,
    engine: EngineLimits,
    findings: Findings,
) -> None:
    """Report values that are not finite, or would not be once cast and scaled: they poison every other answer."""
    limit = _FLOAT16_LIMIT if engine.casts_to_half else _MAGNITUDE_LIMIT
    for module in modules.values():
        rank, alpha = patterns.ranks.of(module.name), patterns.alphas.of(module.name)
        # Where a refused key decides them, the adapter is refused for that.
        scaling = 1.0 if rank is None or alpha is None else config.scaling(rank, alpha)
        if abs(scaling) > limit:
            findings.error(
                Code.VALUE_TOO_LARGE,
                "lora_alpha",
                found=f"a scaling of {scaling:g} for {module.name}",
                expected=f"at most {limit:g}",
                fix="train with a smaller lora_alpha",
            )
        for half in module.halves:
            name = module.tensor_name(half)
            magnitude = adapter.magnitudes.get(name, 0.0)
            if math.isinf(magnitude):
                findings.error(
                    Code.NOT_FINITE,
                    name,
                    found="NaN or Inf in its values",
                    expected="finite values",
                    fix="train again with a lower learning rate or without the overflow; the file is useless",
                )
            elif max(magnitude, magnitude * abs(scaling) if half == "B" else 0.0) > limit:
                findings.error(
                    Code.VALUE_TOO_LARGE,
                    name,
                    found=f"a value of {magnitude:g}",
                    expected=f"at most {limit:g} once scaled",
                    fix="train again with a lower learning rate: such values overflow in the engine",
                )
