"""The merges that are compared with PEFT's: every architecture in every dtype, and every variant on one of them."""

from __future__ import annotations

from typing import Any

ARCHITECTURES = ("llama", "mistral", "qwen2", "qwen3", "gemma2", "phi3", "opt", "gpt2")
DTYPES = ("float32", "float16", "bfloat16")
EVERYTHING = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
Case = dict[str, Any]


def _named(name: str, **case: Any) -> Case:
    return {"name": name, "arch": "llama", "dtype": "bfloat16"} | case


def _architectures() -> list[Case]:
    # A Conv1D's weight lies the other way round.
    more = {"gpt2": {"lora": {"fan_in_fan_out": True}}}
    return [
        _named(f"{arch}-{dtype}", arch=arch, dtype=dtype, **more.get(arch, {}))
        for arch in ARCHITECTURES
        for dtype in DTYPES
    ]


def _variants() -> list[Case]:
    ends = {"target_modules": ["q_proj", "embed_tokens", "lm_head"]}
    patterns = {
        "rank_pattern": {"q_proj": 4, "model.layers.1.mlp.down_proj": 16},
        "alpha_pattern": {"v_proj": 64, "layers.0.self_attn.q_proj": 3},
    }
    loras: dict[str, dict[str, Any]] = {
        "rslora": {"use_rslora": True, "lora_alpha": 11},
        "patterns": patterns,
        "patterns-rslora": patterns | {"use_rslora": True},
        "query-and-value": {"target_modules": ["q_proj", "v_proj"]},
        "some-layers": {"layers_to_transform": [1]},
        "all-linear": {"target_modules": "all-linear"},
        "rank-1": {"r": 1},
        "rank-13": {"r": 13},
        "rank-128": {"r": 128},
        "rank-200": {"r": 200},
        "rank-256": {"r": 256},
        "rank-512": {"r": 512},
    }
    cases = [_named(f"{name}-{dtype}", lora=lora, dtype=dtype) for name, lora in loras.items() for dtype in DTYPES[::2]]
    cases += [_named(f"embedding-and-head-{dtype}", lora=ends, dtype=dtype) for dtype in DTYPES]
    # As PEFT saves it by default: with copies of the base's embedding and head.
    cases += [_named("embedding-and-head-and-copies", lora=ends, dtype="bfloat16", save_embedding_layers="auto")]
    cases += [
        _named(f"{adapter}-adapter-on-{base}", dtype=base, adapter_dtype=adapter)
        for adapter in ("float16", "bfloat16", "float64")
        for base in DTYPES
        if adapter != base
    ]
    cases += [_named(f"shards-{dtype}", dtype=dtype, max_shard_size="200KB") for dtype in DTYPES]
    cases += [
        _named(f"{base}-into-{into}", dtype=base, into=into, max_shard_size="300KB")
        for base in DTYPES
        for into in DTYPES
    ]
    cases += [_named(f"ends-{base}-into-bfloat16", dtype=base, into="bfloat16", lora=ends) for base in DTYPES[:2]]
    cases.append(_named("gpt2-into-bfloat16", arch="gpt2", dtype="float32", into="bfloat16"))
    return cases


CASES = _architectures() + _variants()
