"""The base's shapes, from its config and from its headers."""

from dataclasses import replace

import pytest

from lora_operator.adapter import Header, Tensor, base_from_config, base_from_headers
from support.adapters import TINY_LLAMA, BaseShape, base_header

BASES = [replace(TINY_LLAMA, model_type=family) for family in ("llama", "mistral", "qwen2", "qwen3")]


@pytest.mark.parametrize("shape", [*BASES, replace(TINY_LLAMA, tied=True, head_dim=64)])
def test_config_and_headers_agree(shape: BaseShape) -> None:
    from_config, from_headers = (
        base_from_config(shape.config()),
        base_from_headers([base_header(shape)], shape.config()),
    )
    assert from_config is not None
    assert from_headers == from_config


def test_the_shapes_are_those_of_the_known_llama() -> None:
    config = {
        "model_type": "llama",
        "hidden_size": 4096,
        "intermediate_size": 14336,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "vocab_size": 128256,
    }
    base = base_from_config(config)
    assert base is not None
    assert base.modules["model.layers.31.self_attn.k_proj"] == (1024, 4096)
    assert base.modules["model.layers.0.mlp.down_proj"] == (4096, 14336)
    assert base.modules["lm_head"] == (128256, 4096)
    assert len(base.modules) == 7 * 32 + 2


def test_what_a_config_leaves_out_is_what_transformers_fills_in() -> None:
    sizes = {
        "hidden_size": 1024,
        "intermediate_size": 3072,
        "num_hidden_layers": 1,
        "num_attention_heads": 16,
        "vocab_size": 9,
    }
    keys = {}
    for family in ("llama", "qwen3"):
        base = base_from_config({**sizes, "model_type": family, "num_key_value_heads": 8})
        assert base is not None
        keys[family] = base.modules["model.layers.0.self_attn.k_proj"]
    assert keys == {"llama": (512, 1024), "qwen3": (1024, 1024)}
    old_llama = base_from_config({**sizes, "model_type": "llama"})
    assert old_llama is not None
    assert old_llama.modules["model.layers.0.self_attn.k_proj"] == (1024, 1024)


@pytest.mark.parametrize(
    "change",
    [
        {"model_type": "mamba"},
        {"model_type": ["llama"]},
        {"hidden_size": None},
        {"hidden_size": "128"},
        {"num_hidden_layers": 10**9},
        {"num_attention_heads": 0},
        {"num_key_value_heads": -2},
        {"vocab_size": True},
    ],
)
def test_a_config_that_does_not_tell_gives_no_shapes(change: dict[str, object]) -> None:
    assert base_from_config(TINY_LLAMA.config() | change) is None


@pytest.mark.parametrize("dtype", ["U8", "I32"])
def test_quantised_weights_give_no_shapes(dtype: str) -> None:
    assert base_from_headers([base_header(dtype=dtype)]) is None


def test_another_layout_gives_no_shapes() -> None:
    fused = {"model.layers.0.self_attn.qkv_proj.weight": Tensor("F32", (3, 1), 0, 12)}
    assert base_from_headers([base_header(), Header(10, fused)]) is None


def test_a_missing_shard_gives_no_shapes() -> None:
    tensors = dict(base_header().tensors)
    first = {name: tensor for name, tensor in tensors.items() if ".layers.1." not in name or "mlp" not in name}
    rest = {name: tensor for name, tensor in tensors.items() if name not in first}
    assert base_from_headers([Header(10, first)]) is None
    assert base_from_headers([Header(10, first), Header(10, rest)]) is not None
    assert base_from_headers([]) is None


def test_headers_alone_do_not_tell_what_the_engine_takes_on_embeddings() -> None:
    base = base_from_headers([base_header()])
    assert base is not None
    assert base.serves_embeddings is None
