"""Modules that a spec names, held against the base's."""

from __future__ import annotations

import json
from typing import Any

import pytest

from lora_operator.adapter import base_from_config
from lora_trainer import servable, spec
from lora_trainer.by_hand import TrainSpec
from lora_trainer.result import Refusal

LLAMA = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_attention_heads": 2,
    "num_hidden_layers": 2,
    "vocab_size": 64,
}
BASE = base_from_config(LLAMA)


def on(**lora: Any) -> TrainSpec:
    raw = {"baseModel": {"name": "acme/tiny"}, "dataset": {"source": {"path": "x"}, "format": "Text"}, "lora": lora}
    return spec.parse(json.dumps(raw))


@pytest.mark.parametrize(
    "lora",
    [
        {"targetModules": ["q_proj", "mlp.up_proj"]},
        {"rankPattern": {"q_proj": 4, "model.layers.0.self_attn.v_proj": 8}, "alphaPattern": {"down_proj": 8}},
        {"excludeModules": ["lm_head"]},
        {},
    ],
)
def test_modules_that_the_base_has_pass(lora: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    servable.check_modules(on(**lora), BASE)
    assert "has no module" not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("lora", "sentence"),
    [
        ({"targetModules": ["q_prj"]}, "lora.targetModules: acme/tiny has no module 'q_prj'; did you mean q_proj?"),
        ({"rankPattern": {"proj": 4}}, "lora.rankPattern: acme/tiny has no module 'proj'"),
        ({"alphaPattern": {"layers.7.q_proj": 4}}, "lora.alphaPattern: acme/tiny has no module 'layers.7.q_proj'"),
    ],
)
def test_a_module_that_the_base_lacks_is_refused(lora: dict[str, Any], sentence: str) -> None:
    with pytest.raises(Refusal) as refused:
        servable.check_modules(on(**lora), BASE)
    assert str(refused.value).startswith(sentence)


def test_what_is_excluded_and_not_there_is_a_warning(capsys: pytest.CaptureFixture[str]) -> None:
    servable.check_modules(on(excludeModules=["q_prj"]), BASE)
    assert "lora.excludeModules: acme/tiny has no module 'q_prj'; did you mean q_proj?" in capsys.readouterr().err
