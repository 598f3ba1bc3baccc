"""A spec is refused by the name of the field that is wrong, before anything is imported or asked."""

from __future__ import annotations

import copy
import json
import re
from pathlib import Path
from typing import Any

import pytest

from lora_operator.api import wording
from lora_operator.protocol.training import Reason
from lora_trainer import spec, spec_rules
from lora_trainer.result import Refusal
from lora_trainer.spec import TrainSpec
from support import samples
from support.run_rules import RUN_RULES
from support.training_rules import TRAINING_RULES

RULES = {**TRAINING_RULES, **RUN_RULES}

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
        ("baseModel.name", 7, 'baseModel.name: write the number as a string: "7"'),
        ("baseModel", {}, "baseModel.name: this field is needed"),
        ("dataset.format", "ShareGpt", "dataset.format: Input should be 'Messages', 'PromptCompletion', 'Text', 'Pref"),
        ("lora.rank", 8, "lora.rank: there is no such field"),
        ("lora.lora_alpha", 8, "lora.lora_alpha: there is no such field; did you mean loraAlpha?"),
        ("lora.targetModule", ["q_proj"], "lora.targetModule: there is no such field; did you mean targetModules?"),
        ("trainning", {}, "trainning: there is no such field; did you mean training?"),  # codespell:ignore trainning
        ("training.learningRate", 0.1, 'training.learningRate: write the number as a string: "0.1"'),
        ("training.learningRate", "1e400", "training.learningRate: 1e400 is more than a float can hold"),
        ("training.maxGradNorm", "1e400", "training.maxGradNorm: 1e400 is more than a float can hold"),
        ("training.packing", "yes", 'training.packing: Input should be a valid boolean, not "yes"'),
        ("training.optim", "adamw_torch", "'Adafactor' or 'Sgd', not \"adamw_torch\""),
        ("training.extraArgs", {"neftune_noise_alpha": 0.5}, "training.extraArgs.neftune_noise_alpha: give a whole"),
        ("lora", None, "lora: is empty; fill it in or leave it out"),
        ("lora.r", True, "lora.r: Input should be a valid integer, not true"),
        ("lora.r", "8", 'lora.r: Input should be a valid integer, not "8"'),
        ("training.learningRate", "0", "training.learningRate: must be above 0"),
        ("training", {"maxSteps": 1, "numTrainEpochs": 1}, "training: give numTrainEpochs or maxSteps, not both"),
        ("lora.targetModules", ["all-linear", "q_proj"], "lora.targetModules: all-linear stands alone"),
        ("lora.loraDropout", "1", "lora.loraDropout: must be below 1"),
        ("dataset.source", {}, "dataset.source: exactly one of hub, configMapRef, pvc, url and path must be given"),
        ("lora.useDora", True, "lora.useDora: DoRA is not among the adapters that vLLM serves"),
        ("lora.modulesToSave", ["lm_head"], "lora.modulesToSave: whole modules are not among what vLLM serves beside"),
        ("training.optim", "adamw_torch", 'not "adamw_torch"; did you mean AdamwTorch?'),
        ("baseModel.dtype", "bfloat16", "; did you mean BFloat16?"),
        ("engine.device", "toaster", "engine.device: 'toaster' is none of cpu, cuda"),
        ("engine.dtype", "int3", "engine.dtype: 'int3' is none of auto, half, float16"),
        ("dataset.split", "train[:10%]", "dataset.split: needs dataset.source.hub: a file has no splits"),
        ("baseModel", {"name": "a/b", "path": "x", "revision": "v3"}, "baseModel.revision: belongs to a base of the"),
        ("dataset.format", "Template", "dataset.template: format: Template needs it"),
        ("dataset.template", {"text": "{q}"}, "dataset.template: template belongs to format: Template"),
        ("lora", {"initLoraWeights": "Orthogonal", "rankPattern": {"q": 3}}, "lora.rankPattern.q: initLoraWeights: Or"),
        ("lora.targetModules", ".*q_proj", "lora.targetModules: give a list, such as [a, b]"),
        ("lora.targetModules", [], "lora.targetModules: is empty; fill it in or leave it out"),
        ("output.hub.repo", "", "output.hub.repo: is empty; fill it in or leave it out"),
        ("output.hub.repo", "a b", "output.hub.repo: must be NAME or OWNER/NAME on the Hub: letters, digits and _"),
        ("baseModel.name", "./models/tiny", "such as acme/support-lora; a folder goes into baseModel.path"),
        ("training.learningRate", ".5", 'such as "0.1" or "2e-4"'),
        ("engine.maxLoraRank", 0, "engine.maxLoraRank: Input should be greater than or equal to 1"),
    ],
)
def test_a_wrong_field_is_refused_by_its_name(path: str, value: object, sentence: str) -> None:
    with pytest.raises(Refusal) as refused:
        spec.parse(changed(path, value))
    assert refused.value.reason is Reason.CONFIG_INVALID
    assert sentence in str(refused.value)


def test_a_regular_expression_for_a_module_is_told_once_and_by_what_to_write_instead() -> None:
    with pytest.raises(Refusal) as refused:
        spec.parse(changed("lora.targetModules", [".*q_proj"]))
    assert str(refused.value) == (
        "lora.targetModules.0: must be a module, by the end of its name, such as q_proj: letters, digits and any of "
        "_ . -, and no regular expression"
    )


def test_every_pattern_of_a_spec_has_words() -> None:
    schema = json.dumps(TrainSpec.model_json_schema())
    patterns = {json.loads(f'"{found}"') for found in re.findall(r'"pattern": "((?:[^"\\]|\\.)*)"', schema)}
    assert len(patterns) > 10
    assert [pattern for pattern in sorted(patterns) if wording.allowed(pattern) is None] == []
    assert wording.allowed("^x$") is None


@pytest.mark.parametrize("text", ["lora: {r: 8, r: 16}", '{"lora": {"r": 8}, "lora": {"r": 16}}', "a: &a {r: 8, r: 8}"])
def test_a_field_given_twice_is_refused(text: str) -> None:
    with pytest.raises(Refusal, match=r"^spec is neither JSON nor YAML: (r|lora) is given twice"):
        spec.parse(text)


def test_what_yaml_merges_into_a_mapping_may_be_said_again() -> None:
    text = "lora: &shape {r: 8}\nbaseModel: {name: a/b}\ndataset: {source: {path: x}, format: Text}\n"
    with pytest.raises(Refusal, match=r"^spare: there is no such field$"):
        spec.parse(f"{text}spare:\n  <<: *shape\n  r: 16\n")


def test_a_token_in_a_wrong_place_is_not_repeated() -> None:
    for path in ("output.hub.tokenSecretRef", "output.hub.token", "output.hub.repo", "lora.targetModules"):
        with pytest.raises(Refusal) as refused:
            spec.parse(changed(path, "hf_secret of mine"))
        assert "hf_secret" not in str(refused.value)


@pytest.mark.parametrize("rule", [pytest.param(rule, id=name) for name, rule in RULES.items()])
def test_a_spec_by_hand_is_held_to_what_the_apiserver_holds(rule: tuple[dict[str, Any], dict[str, Any], str]) -> None:
    taken, refused, _ = rule
    job = samples.training_job()
    spec.parse(json.dumps(samples.varied(job, taken)["spec"]))
    with pytest.raises(Refusal) as refusal:
        spec.parse(json.dumps(samples.varied(job, refused)["spec"]))
    assert refusal.value.reason is Reason.CONFIG_INVALID


@pytest.mark.parametrize(
    ("path", "value", "sentence"),
    [
        ("dataset.template", {"text": "{q"}, "dataset.template.text: expected '}' before end of string"),
        ("dataset.template", {"text": "{row.__class__}"}, "dataset.template.text: {row.__class__} is no column's name"),
        ("dataset.template", {"text": "{q!r}"}, "dataset.template.text: {q} is no column's name"),
        ("dataset.template", {"text": "the same for all"}, "dataset.template.text: names no column"),
        ("dataset.columnMap", {"text": "q"}, "dataset.columnMap: columnMap has no use with format Template"),
    ],
)
def test_a_template_that_can_not_be_filled_is_refused(path: str, value: object, sentence: str) -> None:
    raw = json.loads(changed(path, value))
    raw["dataset"] = {"template": {"text": "{q}"}, **raw["dataset"], "format": "Template"}
    with pytest.raises(Refusal) as refused:
        spec.parse(json.dumps(raw))
    assert sentence in str(refused.value)


def test_paths_are_seen_from_the_folder_of_the_spec(tmp_path: Path) -> None:
    raw = {
        "baseModel": {"name": "acme/tiny", "path": "bases/tiny"},
        "dataset": {"source": {"path": "/data/rows.jsonl"}, "format": "Text"},
        "lora": {"initFrom": {"path": "../first"}},
    }
    (tmp_path / "spec.json").write_text(json.dumps(raw))
    read = spec.read(tmp_path / "spec.json")
    assert read.base_model.path == str(tmp_path / "bases/tiny")
    assert read.dataset.source.path == "/data/rows.jsonl"
    assert read.lora.init_from is not None
    assert read.lora.init_from.path == str(tmp_path / "../first")
    assert spec.published_to(read).repo == ""


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


def test_an_engine_that_the_operator_has_read_is_no_cause_for_a_warning() -> None:
    raw = json.loads(changed("engineRef", {"name": "vllm-llama"})) | {"engine": {"type": "VLLM"}}
    assert list(spec_rules.warnings(spec.parse(json.dumps(raw)))) == []


def test_an_identity_never_prints_its_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LORA_OUTPUT_TOKEN", "hf_secret")
    identity = spec.identity_from_env()
    assert identity.output_token == "hf_secret"
    assert "hf_secret" not in repr(identity)


def test_a_gate_against_what_is_published_needs_a_place_where_it_is() -> None:
    raw = json.loads(changed("evaluation", {"fraction": "0.1", "gate": {"against": "Current"}}))
    spec.parse(json.dumps(raw))
    del raw["output"]
    with pytest.raises(Refusal, match=r"^evaluation.gate.against: Current is what output.hub.repo holds"):
        spec.parse(json.dumps(raw))


@pytest.mark.parametrize(
    ("path", "value", "fields"),
    [
        ("training", {"maxSteps": 10, "warmupSteps": 11}, ["training.warmupSteps"]),
        ("training", {"maxSteps": 10, "warmupSteps": 10}, []),
        ("evaluation", {"metric": "eval_mean_token_accuracy", "gate": {"threshold": "0.5"}}, ["evaluation.better"]),
        ("evaluation", {"better": "Higher", "gate": {"threshold": "0.5"}}, ["evaluation.better"]),
        ("evaluation", {"metric": "eval_mean_token_accuracy", "better": "Higher", "gate": {"threshold": "0.5"}}, []),
        ("evaluation", {"metric": "eval_mean_token_accuracy"}, []),
        ("evaluation", {"gate": {"threshold": "0.5"}}, []),
        ("engineRef", {"name": "vllm-llama"}, ["engineRef"]),
    ],
)
def test_what_is_likely_not_meant_is_a_warning(path: str, value: dict[str, Any], fields: list[str]) -> None:
    given = {"fraction": "0.1"} | value if path == "evaluation" else value
    assert [field for field, _ in spec_rules.warnings(spec.parse(changed(path, given)))] == fields
