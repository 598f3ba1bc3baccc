"""Adapters of other architectures than Llama's: fused projections, fewer key and value heads, biases."""

from __future__ import annotations

from dataclasses import replace

from lora_operator.adapter import Code
from support.adapter_corpus.case import Case, bad, good
from support.adapters import TINY_LLAMA, TINY_PHI3, TINY_QWEN2, make_adapter

_QWEN2_GOOD = (
    good("Qwen2: all linear modules", lambda: make_adapter(base=TINY_QWEN2, targets=TINY_QWEN2.linear),
         base=TINY_QWEN2),
    good("Qwen2: where it has biases", lambda: make_adapter(base=TINY_QWEN2, targets=["k_proj", "v_proj"]),
         base=TINY_QWEN2),
    good("Qwen2: another rank and scaling for the values", lambda: make_adapter(
        base=TINY_QWEN2, ranks={"v_proj": 2}, config={"rank_pattern": {"v_proj": 2}, "alpha_pattern": {"v_proj": 5}}),
        base=TINY_QWEN2),
)  # fmt: skip

_QWEN2_BAD = (
    bad("Qwen2: as many key and value heads as it has heads", Code.SHAPE_MISMATCH,
        lambda: make_adapter(base=replace(TINY_QWEN2, kv_heads=4)), base=TINY_QWEN2),
    bad("Qwen2: fewer key and value heads", Code.SHAPE_MISMATCH,
        lambda: make_adapter(base=replace(TINY_QWEN2, kv_heads=1)), base=TINY_QWEN2),
    bad("Qwen2: embed_tokens", Code.UNKNOWN_MODULE,
        lambda: make_adapter(base=TINY_QWEN2, targets=["q_proj", "embed_tokens"]), base=TINY_QWEN2),
    bad("Qwen2: a bias of its own", Code.BIAS_NOT_SUPPORTED,
        lambda: make_adapter(base=TINY_QWEN2, config={"bias": "lora_only"}), base=TINY_QWEN2),
    bad("Qwen2: fused projections", Code.UNKNOWN_MODULE,
        lambda: make_adapter(base=TINY_PHI3, targets=["qkv_proj"]), base=TINY_QWEN2),
)  # fmt: skip

_PHI3_GOOD = (
    good("Phi-3: all linear modules", lambda: make_adapter(base=TINY_PHI3, targets=TINY_PHI3.linear), base=TINY_PHI3),
    good("Phi-3: the fused projections alone", lambda: make_adapter(
        base=TINY_PHI3, targets=["qkv_proj", "gate_up_proj"], ranks={"gate_up_proj": 16},
        config={"rank_pattern": {"gate_up_proj": 16}}), base=TINY_PHI3),
    good("Phi-3: embed_tokens", lambda: make_adapter(base=TINY_PHI3, targets=["o_proj", "embed_tokens"]),
         base=TINY_PHI3),
)  # fmt: skip

_PHI3_BAD = (
    bad("Phi-3: projections apart", Code.UNKNOWN_MODULE,
        lambda: make_adapter(base=TINY_LLAMA, targets=["q_proj", "v_proj"]), base=TINY_PHI3),
    bad("Phi-3: gate and up apart", Code.UNKNOWN_MODULE,
        lambda: make_adapter(base=TINY_LLAMA, targets=["gate_proj", "up_proj"]), base=TINY_PHI3),
    bad("Phi-3: fused of fewer key and value heads", Code.SHAPE_MISMATCH,
        lambda: make_adapter(base=replace(TINY_PHI3, kv_heads=1), targets=["qkv_proj"]), base=TINY_PHI3),
    bad("Phi-3: fused of half the inner width", Code.SHAPE_MISMATCH,
        lambda: make_adapter(base=replace(TINY_PHI3, inner=192), targets=["gate_up_proj"]), base=TINY_PHI3),
)  # fmt: skip

OTHER_GOOD: tuple[Case, ...] = (*_QWEN2_GOOD, *_PHI3_GOOD)
OTHER_BAD: tuple[Case, ...] = (*_QWEN2_BAD, *_PHI3_BAD)
