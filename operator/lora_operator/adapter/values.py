"""The rules over the values: finite, and small enough to stay so in the engine, whatever the others in it are asked.

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

# The gain of a module's LoRA is the most that it can make of an input whose elements are 1:
#
#     gain = |scaling| * rank * width of the input * max|A| * max|B|
#
# Every layer begins with a norm, which makes elements of about 1 of anything, times its own weights n. The longest way
# from there to the next norm is the gated MLP's: down(act(gate(x)) * up(x)), which multiplies three gains and n twice.
# With 1e11 that ends below 1e33 * n^2: finite in float32 and bfloat16 (3.4e38) for norms' weights up to 500, at any
# width and rank, for the width is in it. Trained adapters have gains of 1e2 to 1e6: weights of 0.1 at rank 16 and a
# width of 4096 make 700, and even of 1.0 at rank 256 and a width of 14336 no more than 4e6.
GAIN_LIMIT = 1e11
# Elements are multiplied and summed one by one before they meet others.
_ELEMENT_LIMIT = 1e30
# float16 ends at 65,504, which the base alone may come near to. No bound that trained adapters keep proves that nothing
# overflows there; this one refuses those that do for almost any input.
_FLOAT16_GAIN_LIMIT = 1e7
_FLOAT16_LIMIT = 65504.0


def check_values(  # noqa: PLR0913, PLR0917 - values meet config and engine here
    modules: Mapping[str, Module],
    config: LoraConfig,
    patterns: Patterns,
    adapter: Adapter,
    engine: EngineLimits,
    findings: Findings,
) -> None:
    """Report values that are not finite, or may not be once cast, scaled and summed: they poison every other answer."""
    element_limit, gain_limit = _ELEMENT_LIMIT, GAIN_LIMIT
    if engine.casts_to_half:
        element_limit, gain_limit = _FLOAT16_LIMIT, _FLOAT16_GAIN_LIMIT
    for module in modules.values():
        rank, alpha = patterns.ranks.of(module.name), patterns.alphas.of(module.name)
        # Where a refused key decides them, the adapter is refused for that.
        scaling = 1.0 if rank is None or alpha is None else abs(config.scaling(rank, alpha))
        if scaling > gain_limit:
            findings.error(
                Code.VALUE_TOO_LARGE,
                "lora_alpha",
                found=f"a scaling of {scaling:g} for {module.name}",
                expected=f"at most {gain_limit:g}",
                fix="train with a smaller lora_alpha",
            )
        if not adapter.magnitudes:
            continue  # header level
        magnitudes = {half: adapter.magnitudes.get(module.tensor_name(half), 0.0) for half in module.halves}
        # vLLM multiplies B by the scaling, in the engine's dtype.
        scaled = {"A": 1.0, "B": max(scaling, 1.0)}
        elements = [
            _check_element(module.tensor_name(half), magnitude, scaled[half], element_limit, findings)
            for half, magnitude in magnitudes.items()
        ]
        unscaled = _width(module) * math.prod(magnitudes.values())
        gain = scaling * unscaled
        # PEFT multiplies by the scaling last, vLLM first: a tiny one must not hide what overflows without it.
        if all(elements) and (gain > gain_limit or unscaled > _ELEMENT_LIMIT):
            findings.error(
                Code.VALUE_TOO_LARGE,
                module.tensor_name("B"),
                found=f"a gain of {gain:g}, from {magnitudes['A']:g} in A, {magnitudes['B']:g} in B and the scaling",
                expected=f"at most {gain_limit:g}",
                fix="train again with a lower learning rate or lora_alpha: such values overflow in the engine",
            )


def _check_element(name: str, magnitude: float, scaling: float, limit: float, findings: Findings) -> bool:
    """Report a half whose largest element is too large by itself; tell whether it is not."""
    if math.isinf(magnitude):
        findings.error(
            Code.NOT_FINITE,
            name,
            found="NaN or Inf in its values",
            expected="finite values",
            fix="train again with a lower learning rate or without the overflow; the file is useless",
        )
        return False
    if magnitude * scaling <= limit:
        return True
    findings.error(
        Code.VALUE_TOO_LARGE,
        name,
        found=f"a value of {magnitude:g}",
        expected=f"at most {limit:g} once scaled",
        fix="train again with a lower learning rate: such values overflow in the engine",
    )
    return False


def _width(module: Module) -> int:
    """Return how many products each element of the output is a sum of; an embedding's input is one row of A."""
    if len(module.halves) < 2 or len(module.halves["A"].shape) != 2:
        return 0
    rank, width = module.halves["A"].shape
    return rank if module.embedding else rank * width
