"""What a verdict says for those who don't serve, for other methods than LoRA, and what the base decides of a config."""

from dataclasses import replace

import pytest

from lora_operator import adapter
from lora_operator.adapter import Code, EngineLimits
from support.adapter_corpus.case import NULL_TARGETS, Q0, ones
from support.adapters import TINY_LLAMA, make_adapter, other_base

BASE = adapter.base_from_config(TINY_LLAMA.config())
CPU = EngineLimits(max_lora_rank=16, device="cpu", dtype="float32", version="0.32.0")


@pytest.mark.parametrize("family", ["mixtral", "phi3", "olmo2"])
def test_where_peft_fills_nothing_in_null_is_no_target(family: str) -> None:
    base = adapter.base_from_config(replace(TINY_LLAMA, model_type=family).config() | {"num_local_experts": 2})
    files = make_adapter().with_file(adapter.CONFIG, NULL_TARGETS)
    assert [finding.field for finding in adapter.inspect(files.parts(), base, CPU).errors] == ["target_modules"]


@pytest.mark.timeout(60)
def test_a_hundred_thousand_parameters_cost_no_more_than_reading_them() -> None:
    big = adapter.base_from_config(replace(TINY_LLAMA, layers=80).config())
    files = make_adapter(config={"target_parameters": ["experts.a"] * 50_000})
    assert adapter.inspect(files.parts(), big, CPU).servable


def test_advice_for_others_leaves_alone_what_is_no_matter_of_the_base() -> None:
    wrapped = {
        f"{Q0.replace('model.layers', 'layers')}.lora_{half}.weight": ones(*shape)
        for half, shape in (("A", (8, 128)), ("B", (128, 8)))
    }
    verdict = adapter.inspect(make_adapter(tensors=wrapped).parts(), BASE, CPU)
    assert verdict.advising({}, own_base="elsewhere").errors == verdict.errors
    other = adapter.inspect(make_adapter(base=other_base()).parts(), BASE, CPU)
    assert {finding.fix for finding in other.advising({}, own_base="elsewhere").errors} == {"elsewhere"}
    codes = {Code.SHAPE_MISMATCH: "so"}
    assert {finding.fix for finding in other.advising(codes, own_base="elsewhere").errors} == {"so"}


@pytest.mark.parametrize("method", ["IA3", "ADALORA", "PROMPT_TUNING"])
def test_of_another_method_the_method_is_the_first_thing_said(method: str) -> None:
    files = make_adapter(config={"peft_type": method, "r": None, "rank_pattern": None})
    errors = adapter.inspect(files.parts(), BASE, CPU).errors
    assert [(finding.code, finding.field) for finding in errors] == [(Code.UNSUPPORTED_VARIANT, "peft_type")]


@pytest.mark.parametrize(
    ("config", "fix"),
    [
        ({"use_dora": "true"}, "merge it into the base"),
        ({"use_dora": "False"}, "write false"),
        ({"init_lora_weights": "true"}, "write true"),
        ({"layer_replication": "true"}, "train without it"),
        ({"bias": "None"}, 'write "none"'),
        ({"bias": "all"}, "train without bias"),
    ],
)
def test_quotes_are_the_cure_only_where_nothing_is_set_without_them(config: dict[str, object], fix: str) -> None:
    (error,) = adapter.inspect(make_adapter(config=config).parts(), BASE, CPU).errors
    assert error.fix.startswith(fix)


def test_what_vllm_takes_no_lora_on_is_no_matter_of_another_base() -> None:
    base = adapter.base_from_config(replace(TINY_LLAMA, model_type="glm4").config())
    name = "base_model.model.model.layers.0.mlp.gate_up_proj"
    tensors = {f"{name}.lora_A.weight": ones(8, 128), f"{name}.lora_B.weight": ones(768, 8)}
    files = make_adapter(tensors=tensors, config={"target_modules": ["q_proj", "v_proj", "gate_up_proj"]})
    (error,) = adapter.inspect(files.parts(), base, CPU).errors
    assert (error.code, error.fix) == (Code.UNKNOWN_MODULE, "train without it, or merge it into the base")
