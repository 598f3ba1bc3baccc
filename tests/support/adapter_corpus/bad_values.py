"""Adapters whose values, or whose scaling, are not finite or would not be once cast and multiplied.

Each of them may spoil the answers of the base and of every other adapter, also after its unload.
"""

from dataclasses import replace

import numpy as np

from lora_operator.adapter import Code
from support.adapter_corpus.case import CPU, Case, bad, with_config
from support.adapters import TINY_LLAMA, AdapterFiles, make_adapter, tensor, with_gain

_HALF = replace(CPU, dtype="float16")

_NOT_FINITE = tuple(
    bad(
        f"{what} in the last element, {dtype}",
        Code.NOT_FINITE,
        lambda dtype=dtype, value=value: make_adapter(dtype=dtype).spoilt(value=value),  # type: ignore[misc]
        level="full",
        poisonous=True,
    )
    for dtype in ("F32", "F16", "BF16", "F64", "F8_E5M2", "F8_E4M3")
    for what, value in (("NaN", np.nan), ("Inf", np.inf), ("-Inf", -np.inf))
    if dtype != "F8_E4M3" or what == "NaN"  # it has no infinity
)

# Measured: a norm divides by the overflow, so that every token is as likely as any other, in vLLM as in PEFT.
_OVERFLOW = "both answer noise: sums overflow, here into zeros, with other weights into NaN, which poisons everybody"


def _with_all(value: float, **config: object) -> AdapterFiles:
    """Make an adapter of one module in which each element is *value*."""
    made = {
        f"base_model.model.{TINY_LLAMA.module(layer, 'v_proj')}.lora_{half}.weight": tensor(np.full(shape, value))
        for layer in range(TINY_LLAMA.layers)
        for half, shape in (("A", (8, TINY_LLAMA.hidden)), ("B", (TINY_LLAMA.of("v_proj")[0], 8)))
    }
    return make_adapter(targets=["v_proj"], tensors=made, config=config)


_TOO_LARGE = (
    bad("1e30", Code.VALUE_TOO_LARGE, lambda: make_adapter().spoilt(value=1e30), level="full", poisonous=True,
        why=_OVERFLOW),
    # Measured: NaN, in the base's answers as well. The limit is 1e11, for a model of any width.
    bad("a gated MLP with gains of 1e16", Code.VALUE_TOO_LARGE, lambda: with_gain(1e16), level="full", poisonous=True),
    # PEFT scales last, so that it overflows before; vLLM scales B first.
    bad("what overflows before a tiny scaling", Code.VALUE_TOO_LARGE, lambda: _with_all(1e20, lora_alpha=8e-35),
        level="full", poisonous=True),
    bad("a gain of 1.1e11", Code.VALUE_TOO_LARGE, lambda: with_gain(1.1e11), level="full", askable=False),
    bad("1e300 in float64", Code.VALUE_TOO_LARGE, lambda: make_adapter(dtype="F64").spoilt(value=-1e300),
        level="full", poisonous=True),
    bad("-1e38 in bfloat16", Code.VALUE_TOO_LARGE, lambda: make_adapter(dtype="BF16").spoilt(value=-1e38),
        level="full", poisonous=True),
    bad("70,000 for an engine in float16", Code.VALUE_TOO_LARGE,
        lambda: make_adapter(config={"lora_alpha": 8}).spoilt(value=70_000.0), level="full", engine=_HALF,
        askable=False),
    bad("70,000 for LoRAs in float16 on an engine in float32", Code.VALUE_TOO_LARGE,
        lambda: make_adapter(config={"lora_alpha": 8}).spoilt(value=70_000.0), level="full",
        engine=replace(CPU, lora_dtype="float16"), askable=False),
    bad("40,000, doubled by its scaling, for an engine in float16", Code.VALUE_TOO_LARGE,
        lambda: make_adapter().spoilt(value=40_000.0), level="full", engine=_HALF, askable=False),
    bad("a gain of 1.1e7 for an engine in float16", Code.VALUE_TOO_LARGE, lambda: with_gain(1.1e7), level="full",
        engine=_HALF, askable=False),
    bad("alpha 1e25", Code.VALUE_TOO_LARGE, with_config(lora_alpha=1e25), poisonous=True, why=_OVERFLOW),
    bad("alpha_pattern 1e25", Code.VALUE_TOO_LARGE, with_config(alpha_pattern={"v_proj": 1e25}), poisonous=True,
        why=_OVERFLOW),
)  # fmt: skip

BAD_VALUES: tuple[Case, ...] = (*_NOT_FINITE, *_TOO_LARGE)
