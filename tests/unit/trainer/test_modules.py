"""Modules that a spec names, held against the base's."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from lora_operator.adapter import base_from_config, base_from_headers
from lora_operator.protocol.training import Reason
from lora_trainer import base, servable, spec
from lora_trainer.base import BaseModel
from lora_trainer.by_hand import TrainSpec
from lora_trainer.hub import Patience
from lora_trainer.result import Refusal
from support import adapters

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
        {"initLoraWeights": "Pissa", "r": 16},
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
        ({"initLoraWeights": "Pissa", "r": 17}, "lora.r: Pissa: 17 is more than model.layers.0."),
        (
            {"initLoraWeights": "Olora", "targetModules": ["up_proj"], "r": 8, "rankPattern": {"up_proj": 17}},
            "lora.r: Olora: 17 is more than model.layers.0.mlp.up_proj has, which is of 32 by 16",
        ),
        ({"rankPattern": {"proj": 4}}, "lora.rankPattern: acme/tiny has no module 'proj'"),
        ({"alphaPattern": {"layers.7.q_proj": 4}}, "lora.alphaPattern: acme/tiny has no module 'layers.7.q_proj'"),
    ],
)
def test_a_module_that_the_base_lacks_is_refused(lora: dict[str, Any], sentence: str) -> None:
    with pytest.raises(Refusal) as refused:
        servable.check_modules(on(**lora), BASE)
    assert str(refused.value).startswith(sentence)


def test_targets_that_the_engine_takes_no_lora_on_are_refused() -> None:
    experts = base_from_config(LLAMA | {"model_type": "mixtral", "num_local_experts": 2, "num_key_value_heads": 2})
    servable.check_modules(on(targetModules=["q_proj", "o_proj"]), experts)
    with pytest.raises(Refusal) as refused:
        servable.check_modules(on(targetModules=["all-linear"]), experts)
    assert refused.value.reason is Reason.NOT_SERVABLE
    assert "name the modules of the attention" in str(refused.value)


def test_what_is_excluded_and_not_there_is_a_warning(capsys: pytest.CaptureFixture[str]) -> None:
    servable.check_modules(on(excludeModules=["q_prj"]), BASE)
    assert "lora.excludeModules: acme/tiny has no module 'q_prj'; did you mean q_proj?" in capsys.readouterr().err


def test_an_adapter_of_another_base_is_no_start(tmp_path: Path) -> None:
    start = adapters.make_adapter().write(tmp_path)
    wanted = on(initFrom={"path": str(tmp_path)})
    servable.check_config(wanted, start)
    servable.check_start(wanted, start, base_from_headers([adapters.base_header()]))
    with pytest.raises(Refusal, match=r"^lora.initFrom: .*ShapeMismatch") as refused:
        servable.check_start(wanted, start, BASE)
    assert refused.value.reason is Reason.NOT_SERVABLE
    assert "To fix: go on from an adapter of this base, or name in baseModel the base that it was" in str(refused.value)
    assert "serve it" not in str(refused.value)


def test_an_adapter_of_too_high_a_rank_is_no_start(tmp_path: Path) -> None:
    start = adapters.make_adapter().write(tmp_path)
    raw = {
        "baseModel": {"name": "acme/tiny"},
        "dataset": {"source": {"path": "x"}, "format": "Text"},
        "lora": {"initFrom": {"path": str(tmp_path)}},
        "engine": {"maxLoraRank": 1},
    }
    with pytest.raises(Refusal, match=r"RankTooHigh .*To fix: go on from an adapter of a lower rank, begin anew"):
        servable.check_config(spec.parse(json.dumps(raw)), start)


@pytest.mark.parametrize(
    ("name", "content"), [("config.json", b"{"), ("model.safetensors", b"\x08"), ("model.safetensors", b"\xff" * 64)]
)
def test_a_base_with_a_broken_file_is_refused_by_that_file(name: str, content: bytes, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(LLAMA))
    (tmp_path / name).write_bytes(content)
    model = BaseModel(name="acme/tiny", revision="1", folder=tmp_path, field="baseModel.path")
    with pytest.raises(Refusal) as refused:
        base.shapes(model)
    assert refused.value.reason is Reason.BASE_MODEL_UNAVAILABLE
    assert str(refused.value).startswith(f"baseModel.path: {tmp_path / name} can't be read: ")


def test_a_base_in_a_folder_that_lacks_a_shard_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(LLAMA))
    index = {"weight_map": {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    (tmp_path / "model-00001-of-00002.safetensors").touch()
    raw = {
        "baseModel": {"name": "acme/tiny", "path": str(tmp_path)},
        "dataset": {"source": {"path": "x"}, "format": "Text"},
    }
    with pytest.raises(Refusal, match=r"lacks 1 of the files that model\.safetensors\.index\.json names: model-00002"):
        base.fetch(spec.parse(json.dumps(raw)), revision="1", token=None, patience=Patience(), weights=False)
