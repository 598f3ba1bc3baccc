"""A spec is refused by the name of the field that is wrong, before anything is imported or asked."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest

from lora_operator.protocol.training import Reason
from lora_trainer import spec
from lora_trainer.result import Refusal

MINIMAL: dict[str, Any] = {
    "baseModel": {"name": "acme/tiny"},
    "dataset": {"source": {"configMapRef": {"name": "data", "key": "train.jsonl"}}, "format": "Text"},
    "output": {"hub": {"repo": "acme/adapter"}},
}


def changed(path: str, value: object) -> str:
    raw = copy.deepcopy(MINIMAL)
    *parents, last = path.split(".")
    at = raw
    for part in parents:
        at = at.setdefault(part, {})
    at[last] = value
    return json.dumps(raw)


def test_a_minimal_spec_is_read_from_json_and_from_yaml() -> None:
    from_yaml = spec.parse(
        "baseModel: {name: acme/tiny}\n"
        "dataset: {source: {configMapRef: {name: data, key: train.jsonl}}, format: Text}\n"
        "output: {hub: {repo: acme/adapter}}\n"
    )
    assert from_yaml == spec.parse(json.dumps(MINIMAL))
    assert from_yaml.engine is None


def test_the_engine_that_the_operator_writes_beside_engine_ref_is_read() -> None:
    engine = {"type": "VLLM", "version": "0.32.0", "device": "cpu", "maxLoraRank": 8, "dtype": "float32"}
    read = spec.parse(changed("engine", engine))
    assert read.engine == spec.Engine(version="0.32.0", device="cpu", max_lora_rank=8, dtype="float32")


@pytest.mark.parametrize(
    ("path", "value", "sentence"),
    [
        ("baseModel.name", 7, "baseModel.name: Input should be a valid string"),
        ("baseModel", {}, "baseModel.name: this field is needed"),
        ("dataset.format", "Alpaca", "dataset.format: Input should be 'Messages', 'PromptCompletion' or 'Text'"),
        ("lora.rank", 8, "lora.rank: there is no such field"),
        ("lora.lora_alpha", 8, "lora.lora_alpha: there is no such field; did you mean loraAlpha?"),
        ("lora.targetModule", ["q_proj"], "lora.targetModule: there is no such field; did you mean targetModules?"),
        ("trainning", {}, "trainning: there is no such field; did you mean training?"),  # codespell:ignore trainning
        ("training.learningRate", 0.1, "training.learningRate: Input should be a valid string"),
        ("training.learningRate", "0", "training.learningRate: must be above 0"),
        ("training", {"maxSteps": 1, "numTrainEpochs": 1}, "training: give numTrainEpochs or maxSteps, not both"),
        ("lora.targetModules", ["all-linear", "q_proj"], "lora.targetModules: all-linear stands alone"),
        ("lora.loraDropout", "1", "lora.loraDropout: must be below 1"),
        ("dataset.source", {}, "dataset.source: exactly one of hub and configMapRef must be given"),
        ("engine.maxLoraRank", 0, "engine.maxLoraRank: Input should be greater than or equal to 1"),
    ],
)
def test_a_wrong_field_is_refused_by_its_name(path: str, value: object, sentence: str) -> None:
    with pytest.raises(Refusal) as refused:
        spec.parse(changed(path, value))
    assert refused.value.reason is Reason.CONFIG_INVALID
    assert sentence in str(refused.value)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("a: [", "spec is neither JSON nor YAML"),
        ("- 1", "spec is no mapping"),
        ("kind: LoRATrainingJob\nspec: {}", "lora-train reads what stands under `spec:`"),
    ],
)
def test_a_text_that_is_no_spec_is_refused(text: str, sentence: str) -> None:
    with pytest.raises(Refusal, match=sentence):
        spec.parse(text)


@pytest.mark.parametrize(
    ("dtype", "accelerator", "torch_name"),
    [
        ("Auto", True, "bfloat16"),
        ("Auto", False, "float32"),
        ("BFloat16", False, "bfloat16"),
        ("Float32", True, "float32"),
    ],
)
def test_the_dtype_is_always_explicit(dtype: str, accelerator: bool, torch_name: str) -> None:
    assert spec.dtype_of(spec.parse(changed("baseModel.dtype", dtype)), accelerator=accelerator) == torch_name


def test_an_identity_never_prints_its_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LORA_OUTPUT_TOKEN", "hf_secret")
    identity = spec.identity_from_env()
    assert identity.output_token == "hf_secret"
    assert "hf_secret" not in repr(identity)
