"""Every kind of adapter, good and bad, at both levels: what the verdict must be, and the code that it must give."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from lora_operator import adapter
from lora_operator.adapter import Code, EngineLimits
from support.adapters import TINY_LLAMA, AdapterFiles, make_adapter, other_base, safetensors, tensor

BASE = adapter.base_from_config(TINY_LLAMA.config())
CPU = EngineLimits(max_lora_rank=16, device="cpu", dtype="float32", version="0.32.0")
GPU = EngineLimits(max_lora_rank=16, device="cuda", dtype="bfloat16", version="0.33.0")
ALL = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
Q0 = "base_model.model.model.layers.0.self_attn.q_proj"


def ones(*shape: int) -> tuple[str, tuple[int, ...], bytes]:
    return tensor(np.ones(shape))


GOOD = {
    "two targets": make_adapter(),
    "all linear modules": make_adapter(targets=ALL),
    "the highest rank": make_adapter(rank=16),
    "rank 1": make_adapter(rank=1),
    "bfloat16": make_adapter(dtype="BF16"),
    "float16": make_adapter(dtype="F16"),
    "float64": make_adapter(dtype="F64"),
    "float8 e5m2": make_adapter(dtype="F8_E5M2"),
    "float8 e4m3": make_adapter(dtype="F8_E4M3"),
    "rsLoRA": make_adapter(config={"use_rslora": True}),
    "negative alpha": make_adapter(config={"lora_alpha": -16}),
    "alpha that is no whole number": make_adapter(config={"lora_alpha": 12.5}),
    "alpha zero": make_adapter(config={"lora_alpha": 0}),
    "fan_in_fan_out": make_adapter(config={"fan_in_fan_out": True}),
    "rank_pattern by module": make_adapter(ranks={"v_proj": 4}, config={"rank_pattern": {"v_proj": 4}}),
    "rank_pattern by full name": make_adapter(
        targets=["q_proj"],
        ranks={"q_proj": 4},
        config={"rank_pattern": {"^model.layers.0.self_attn.q_proj": 4, "layers.1.self_attn.q_proj": 4}},
    ),
    "alpha_pattern": make_adapter(config={"alpha_pattern": {"self_attn.v_proj": 3}}),
    "EVA": make_adapter(config={"init_lora_weights": "eva"}),
    "mica": make_adapter(config={"init_lora_weights": "mica"}),
    "gaussian": make_adapter(config={"init_lora_weights": "gaussian"}),
    "full names as targets": make_adapter(
        config={
            "target_modules": [f"model.layers.{layer}.self_attn.{m}" for layer in (0, 1) for m in ("q_proj", "v_proj")]
        }
    ),
    "targets that the base lacks": make_adapter(config={"target_modules": ["q_proj", "v_proj", "c_attn"]}),
    "all-linear as PEFT would resolve it": make_adapter(targets=ALL, config={"target_modules": "all-linear"}),
    "targets by a regex": make_adapter(config={"target_modules": ".*(q|v)_proj"}),
    "excluded elsewhere": make_adapter(config={"exclude_modules": ["lm_head"]}),
    "one layer transformed": make_adapter(base=replace(TINY_LLAMA, layers=1), config={"layers_to_transform": [0]}),
    "embed_tokens": make_adapter(targets=["q_proj", "embed_tokens"]),
    "dropout in training": make_adapter(config={"lora_dropout": 0.3}),
    "weight tying without embeddings": make_adapter(config={"ensure_weight_tying": True}),
    "no task": make_adapter(config={"task_type": None}),
    "base named by a path": make_adapter(config={"base_model_name_or_path": "/home/me/models/llama"}),
    "a pickle beside it": make_adapter().with_file("adapter_model.bin", b"\x80\x02."),
    "other files beside it": make_adapter().with_file("README.md", b"# card").with_file("training_args.bin", b"\x80"),
    "fields with empty values": make_adapter(config={"arrow_config": None, "from_the_future": False}),
}

BAD = {
    "rank too high": (make_adapter(rank=64), Code.RANK_TOO_HIGH),
    "rank too high in rank_pattern alone": (make_adapter(config={"rank_pattern": {"c_attn": 64}}), Code.RANK_TOO_HIGH),
    "half the base's width": (make_adapter(base=other_base()), Code.SHAPE_MISMATCH),
    "twice the base's width": (make_adapter(base=replace(TINY_LLAMA, hidden=256)), Code.SHAPE_MISMATCH),
    "another vocabulary": (
        make_adapter(base=replace(TINY_LLAMA, vocabulary=4096), targets=["embed_tokens"]),
        Code.SHAPE_MISMATCH,
    ),
    "more layers": (make_adapter(base=replace(TINY_LLAMA, layers=3)), Code.LAYER_OUT_OF_RANGE),
    "a layer called 00": (
        make_adapter(tensors={Q0.replace(".0.", ".00.") + f".lora_{half}.weight": ones(8, 8) for half in "AB"}),
        Code.UNKNOWN_MODULE,
    ),
    "a module unknown to the base": (
        make_adapter(
            config={"target_modules": ["q_proj", "v_proj", "foo_proj"]},
            tensors={Q0.replace("q_proj", "foo_proj") + f".lora_{half}.weight": ones(8, 8) for half in "AB"},
        ),
        Code.UNKNOWN_MODULE,
    ),
    "config says another rank": (make_adapter(config={"r": 4}), Code.RANK_MISMATCH),
    "rank_pattern that is not in the tensors": (
        make_adapter(config={"rank_pattern": {"v_proj": 4}}),
        Code.RANK_MISMATCH,
    ),
    "A and B of different rank": (make_adapter(tensors={f"{Q0}.lora_A.weight": ones(4, 128)}), Code.RANK_MISMATCH),
    "A without B": (make_adapter(tensors={f"{Q0}.lora_B.weight": None}), Code.UNPAIRED_TENSOR),
    "B without A": (make_adapter(tensors={f"{Q0}.lora_A.weight": None}), Code.UNPAIRED_TENSOR),
    "rank 0": (make_adapter(rank=0), Code.MALFORMED_CONFIG),
    "rank 8.0": (make_adapter(config={"r": 8.0}), Code.MALFORMED_CONFIG),
    "rank true": (make_adapter(config={"r": True}), Code.MALFORMED_CONFIG),
    "no rank": (make_adapter(config={"r": None}), Code.MALFORMED_CONFIG),
    "no alpha": (make_adapter(config={"lora_alpha": None}), Code.MALFORMED_CONFIG),
    "alpha as a text": (make_adapter(config={"lora_alpha": "16"}), Code.MALFORMED_CONFIG),
    "alpha NaN": (make_adapter(config={"lora_alpha": float("nan")}), Code.MALFORMED_CONFIG),
    "alpha Infinity": (make_adapter(config={"lora_alpha": float("inf")}), Code.MALFORMED_CONFIG),
    "alpha 1e300": (make_adapter(config={"lora_alpha": 1e300}), Code.MALFORMED_CONFIG),
    "alpha 1e12": (make_adapter(config={"lora_alpha": 1e12}), Code.VALUE_TOO_LARGE),
    "alpha of 400 digits": (make_adapter(config={"lora_alpha": 10**400}), Code.MALFORMED_CONFIG),
    "NaN in alpha_pattern": (make_adapter(config={"alpha_pattern": {"q_proj": float("nan")}}), Code.MALFORMED_CONFIG),
    "dropout 2": (make_adapter(config={"lora_dropout": 2}), Code.MALFORMED_CONFIG),
    "no targets": (make_adapter(config={"target_modules": []}), Code.MALFORMED_CONFIG),
    "targets a number": (make_adapter(config={"target_modules": 7}), Code.MALFORMED_CONFIG),
    "targets missing": (make_adapter(config={"target_modules": None}), Code.MALFORMED_CONFIG),
    "rank_pattern null": (
        make_adapter().with_file(
            adapter.CONFIG, b'{"peft_type": "LORA", "r": 8, "lora_alpha": 8, "rank_pattern": null}'
        ),
        Code.MALFORMED_CONFIG,
    ),
    "targets narrower than the tensors": (make_adapter(config={"target_modules": ["q_proj"]}), Code.NOT_TARGETED),
    "embeddings beside all-linear": (
        make_adapter(targets=[*ALL, "embed_tokens"], config={"target_modules": "all-linear"}),
        Code.NOT_TARGETED,
    ),
    "excluded though in the file": (make_adapter(config={"exclude_modules": ["v_proj"]}), Code.NOT_TARGETED),
    "layers narrower than the tensors": (make_adapter(config={"layers_to_transform": 1}), Code.NOT_TARGETED),
    "missing tensors with a random init": (
        make_adapter(config={"target_modules": ["q_proj", "v_proj", "o_proj"], "init_lora_weights": False}),
        Code.MISSING_TENSOR,
    ),
    "a regex in rank_pattern": (make_adapter(config={"rank_pattern": {"(a+)+$": 8}}), Code.PATTERN_NOT_SUPPORTED),
    "a regex in alpha_pattern": (make_adapter(config={"alpha_pattern": {"(a|a)*b": 8}}), Code.PATTERN_NOT_SUPPORTED),
    "DoRA": (make_adapter(config={"use_dora": True}), Code.DORA_NOT_SUPPORTED),
    "a DoRA vector": (make_adapter(tensors={f"{Q0}.lora_magnitude_vector": ones(128)}), Code.DORA_NOT_SUPPORTED),
    "bias all": (make_adapter(config={"bias": "all"}), Code.BIAS_NOT_SUPPORTED),
    "lora_bias": (make_adapter(config={"lora_bias": True}), Code.BIAS_NOT_SUPPORTED),
    "modules_to_save": (make_adapter(config={"modules_to_save": ["lm_head"]}), Code.MODULES_TO_SAVE_NOT_SUPPORTED),
    "PiSSA": (make_adapter(config={"init_lora_weights": "pissa_niter_16"}), Code.INIT_NOT_SUPPORTED),
    "OLoRA": (make_adapter(config={"init_lora_weights": "olora"}), Code.INIT_NOT_SUPPORTED),
    "CorDA": (make_adapter(config={"init_lora_weights": "corda"}), Code.INIT_NOT_SUPPORTED),
    "LoftQ": (make_adapter(config={"init_lora_weights": "LoftQ"}), Code.INIT_NOT_SUPPORTED),
    "an unknown init": (make_adapter(config={"init_lora_weights": "magic"}), Code.UNSUPPORTED_VARIANT),
    "aLoRA": (make_adapter(config={"alora_invocation_tokens": [1, 2]}), Code.UNSUPPORTED_VARIANT),
    "layer replication": (make_adapter(config={"layer_replication": [[0, 2]]}), Code.UNSUPPORTED_VARIANT),
    "BD-LoRA": (make_adapter(config={"use_bdlora": {"nblocks": 2}}), Code.UNSUPPORTED_VARIANT),
    "QALoRA": (make_adapter(config={"use_qalora": True}), Code.UNSUPPORTED_VARIANT),
    "trained tokens": (make_adapter(config={"trainable_token_indices": [5]}), Code.UNSUPPORTED_VARIANT),
    "megatron": (make_adapter(config={"megatron_config": {"a": 1}}), Code.UNSUPPORTED_VARIANT),
    "arrow": (make_adapter(config={"arrow_config": {"top_k": 2}}), Code.UNSUPPORTED_VARIANT),
    "kasa": (make_adapter(config={"kasa_config": {"beta": 1}}), Code.UNSUPPORTED_VARIANT),
    "LoRA on parameters": (make_adapter(config={"target_parameters": ["q_proj.weight"]}), Code.UNSUPPORTED_VARIANT),
    "embeddings tied by PEFT": (
        make_adapter(targets=["embed_tokens"], config={"ensure_weight_tying": True}),
        Code.UNSUPPORTED_VARIANT,
    ),
    "no peft_type": (make_adapter(config={"peft_type": None}), Code.UNSUPPORTED_VARIANT),
    "peft_type in lower case": (make_adapter(config={"peft_type": "lora"}), Code.UNSUPPORTED_VARIANT),
    "another method": (make_adapter(config={"peft_type": "IA3"}), Code.UNSUPPORTED_VARIANT),
    "an unknown task": (make_adapter(config={"task_type": "CHAT"}), Code.UNSUPPORTED_VARIANT),
    "whole embeddings saved along": (
        make_adapter(tensors={"base_model.model.model.embed_tokens.base_layer.weight": ones(2048, 128)}),
        Code.UNKNOWN_TENSOR,
    ),
    "names without PEFT's prefix": (
        make_adapter(tensors={"model.layers.0.self_attn.k_proj.lora_A.weight": ones(8, 128)}),
        Code.UNKNOWN_TENSOR,
    ),
    "names with PEFT's prefix twice": (
        make_adapter(tensors={f"base_model.model.{Q0}.lora_A.weight": ones(8, 128)}),
        Code.UNKNOWN_TENSOR,
    ),
    "names with the adapter's name": (
        make_adapter(tensors={f"{Q0}.lora_A.default.weight": ones(8, 128)}),
        Code.UNKNOWN_TENSOR,
    ),
    "names of a compiled model": (
        make_adapter(tensors={f"{Q0.replace('model.layers', '_orig_mod.layers')}.lora_A.weight": ones(8, 128)}),
        Code.UNKNOWN_MODULE,
    ),
    "embeddings as a linear layer": (
        make_adapter(
            config={"target_modules": ["q_proj", "v_proj", "embed_tokens"]},
            tensors={f"base_model.model.model.embed_tokens.lora_{half}.weight": ones(8, 8) for half in "AB"},
        ),
        Code.UNKNOWN_TENSOR,
    ),
    "a vector": (make_adapter(tensors={f"{Q0}.lora_A.weight": ones(8)}), Code.SHAPE_MISMATCH),
    "a cube": (make_adapter(tensors={f"{Q0}.lora_A.weight": ones(8, 128, 1)}), Code.SHAPE_MISMATCH),
    "an empty matrix": (make_adapter(tensors={f"{Q0}.lora_A.weight": ones(0, 128)}), Code.SHAPE_MISMATCH),
    "complex numbers": (
        make_adapter(tensors={f"{Q0}.lora_A.weight": ("C64", (8, 128), bytes(8 * 8 * 128))}),
        Code.UNSUPPORTED_DTYPE,
    ),
    "no tensors": (make_adapter().with_file(adapter.WEIGHTS, safetensors({})), Code.NO_TENSORS),
    "truncated": (make_adapter().truncated(), Code.TRUNCATED_FILE),
    "an empty file": (make_adapter().with_file(adapter.WEIGHTS, b""), Code.TRUNCATED_FILE),
    "garbage": (make_adapter().with_file(adapter.WEIGHTS, b"\xff" * 64), Code.MALFORMED_HEADER),
    "a pickle alone": (make_adapter().pickle_only(), Code.PICKLE_ONLY),
    "no weights": (make_adapter().with_file(adapter.WEIGHTS, None), Code.MISSING_FILE),
    "no config": (make_adapter().with_file(adapter.CONFIG, None), Code.MISSING_CONFIG),
    "broken config": (make_adapter().with_file(adapter.CONFIG, b"{"), Code.MALFORMED_CONFIG),
    "shards": (
        make_adapter()
        .with_file("adapter_model-00001-of-00001.safetensors", make_adapter().files[adapter.WEIGHTS])
        .with_file(adapter.WEIGHTS, None),
        Code.SHARDED_WEIGHTS,
    ),
}

BAD_VALUES = {
    "NaN in the last element": (make_adapter().spoilt(nan=True), Code.NOT_FINITE),
    "Inf in the last element": (make_adapter().spoilt(), Code.NOT_FINITE),
    "minus Inf in bfloat16": (make_adapter(dtype="BF16").spoilt(value=-np.inf), Code.NOT_FINITE),
    "NaN in float16": (make_adapter(dtype="F16").spoilt(nan=True), Code.NOT_FINITE),
    "NaN in float64": (make_adapter(dtype="F64").spoilt(nan=True), Code.NOT_FINITE),
    "Inf in float8 e5m2": (make_adapter(dtype="F8_E5M2").spoilt(), Code.NOT_FINITE),
    "NaN in float8 e4m3": (make_adapter(dtype="F8_E4M3").spoilt(nan=True), Code.NOT_FINITE),
    "1e30": (make_adapter().spoilt(value=1e30), Code.VALUE_TOO_LARGE),
    "1e300 in float64": (make_adapter(dtype="F64").spoilt(value=-1e300), Code.VALUE_TOO_LARGE),
    "too large once scaled": (make_adapter(config={"lora_alpha": 8e5}).spoilt(value=1e5), Code.VALUE_TOO_LARGE),
}


def judge(files: AdapterFiles, folder: Path, *, engine: EngineLimits = CPU) -> tuple[adapter.Verdict, adapter.Verdict]:
    """Return the verdict on the header, as the operator gives it, and on every byte, as the agent does."""
    full = adapter.open_directory(files.write(folder), level="full")
    return adapter.inspect(files.parts(), BASE, engine), adapter.inspect(full, BASE, engine)


@pytest.mark.parametrize("name", GOOD)
def test_a_good_adapter_is_servable_at_both_levels(name: str, tmp_path: Path) -> None:
    header, full = judge(GOOD[name], tmp_path)
    assert header.errors == full.errors == ()
    assert header.servable
    assert full.servable
    assert header.shapes_checked
    assert full.compatible == "True"
    assert header.summary == full.summary
    assert full.summary.digest == GOOD[name].digest


@pytest.mark.parametrize("name", BAD)
def test_a_bad_adapter_is_refused_with_its_code_at_both_levels(name: str, tmp_path: Path) -> None:
    files, code = BAD[name]
    for verdict in judge(files, tmp_path):
        assert not verdict.servable
        assert verdict.compatible == "False"
        assert code in {finding.code for finding in verdict.errors}, verdict.findings
        assert code.value in verdict.message()
        assert len(verdict.message()) <= 1024


@pytest.mark.parametrize("name", BAD_VALUES)
def test_bad_values_are_found_by_the_full_level_alone(name: str, tmp_path: Path) -> None:
    files, code = BAD_VALUES[name]
    header, full = judge(files, tmp_path)
    assert header.servable
    assert [finding.code for finding in full.errors] == [code]
    assert full.errors[0].field.endswith("layers.1.self_attn.v_proj.lora_B.weight")


def test_every_finding_is_reported_not_only_the_first() -> None:
    files = make_adapter(rank=64, base=other_base(), config={"use_dora": True, "bias": "all"})
    verdict = adapter.inspect(files.parts(), BASE, CPU)
    assert {finding.code for finding in verdict.errors} == {
        Code.RANK_TOO_HIGH,
        Code.SHAPE_MISMATCH,
        Code.DORA_NOT_SUPPORTED,
        Code.BIAS_NOT_SUPPORTED,
    }
    assert verdict.reason == verdict.errors[0].code


def test_a_thousand_faults_of_one_kind_are_counted_not_listed() -> None:
    unknown = {f"tensor.{number}": ones(1) for number in range(1000)}
    verdict = adapter.inspect(make_adapter(tensors=unknown).parts(), BASE, CPU)
    assert len(verdict.findings) < 20
    assert "and 984 more" in verdict.findings[-1].found
    assert len(verdict.message()) <= 1024


def test_float16_engines_have_their_own_limit(tmp_path: Path) -> None:
    files = make_adapter(config={"lora_alpha": 8}).spoilt(value=70_000.0)
    assert judge(files, tmp_path, engine=CPU)[1].servable
    assert judge(files, tmp_path, engine=replace(CPU, dtype="float16"))[1].reason == Code.VALUE_TOO_LARGE


@pytest.mark.parametrize(("engine", "servable"), [(CPU, False), (GPU, True), (replace(GPU, device=None), False)])
def test_a_lora_on_the_head_is_refused_unless_the_engine_is_on_a_gpu(engine: EngineLimits, servable: bool) -> None:
    verdict = adapter.inspect(make_adapter(targets=["q_proj", "lm_head"]).parts(), BASE, engine)
    assert verdict.servable is servable
    assert Code.LM_HEAD_NOT_SUPPORTED in {finding.code for finding in verdict.findings}


def test_qwen2_takes_no_lora_on_its_embeddings() -> None:
    shape = replace(TINY_LLAMA, model_type="qwen2")
    files = make_adapter(base=shape, targets=["q_proj", "embed_tokens"])
    assert adapter.inspect(files.parts(), adapter.base_from_config(shape.config()), CPU).reason == Code.UNKNOWN_MODULE


def test_without_the_bases_shapes_nothing_is_said_to_be_compatible() -> None:
    verdict = adapter.inspect(make_adapter().parts(), None, CPU)
    assert not verdict.servable
    assert not verdict.shapes_checked
    assert (verdict.compatible, verdict.reason) == ("Unknown", Code.BASE_NOT_READABLE)


def test_what_is_wrong_comes_before_what_could_not_be_looked_at() -> None:
    verdict = adapter.inspect(make_adapter(rank=64).parts(), None, CPU)
    assert (verdict.compatible, verdict.reason) == ("False", Code.RANK_TOO_HIGH)
    assert verdict.message().startswith(Code.RANK_TOO_HIGH)


def test_a_config_alone_is_judged_as_far_as_it_goes() -> None:
    good = adapter.inspect(adapter.from_config(make_adapter().files[adapter.CONFIG]), None, CPU)
    assert good.servable
    assert {(finding.code, finding.field) for finding in good.findings} == {(Code.NOT_CHECKED, "tensors")}
    bad = adapter.inspect(adapter.from_config(make_adapter(rank=64).files[adapter.CONFIG]), BASE, CPU)
    assert bad.reason == Code.RANK_TOO_HIGH


@pytest.mark.parametrize(
    ("targets", "code"),
    [
        ("all-linear", None),
        (["q_proj", "c_attn"], None),
        (".*_proj", None),
        (["c_attn"], Code.UNKNOWN_MODULE),
        (["q_proj", "lm_head"], Code.LM_HEAD_NOT_SUPPORTED),
    ],
)
def test_targets_are_judged_before_training(targets: object, code: Code | None) -> None:
    files = make_adapter(config={"target_modules": targets})
    verdict = adapter.inspect(adapter.from_config(files.files[adapter.CONFIG]), BASE, CPU)
    assert [finding.code for finding in verdict.errors] == ([code] if code else [])


def test_an_unknown_limit_is_told_and_does_not_forbid() -> None:
    verdict = adapter.inspect(make_adapter().parts(), BASE, EngineLimits(device="cuda"))
    assert verdict.servable
    assert [finding.field for finding in verdict.findings] == ["--max-lora-rank"]


def test_a_newer_engine_is_a_warning_and_another_kind_an_error() -> None:
    newer = adapter.inspect(make_adapter().parts(), BASE, replace(CPU, version="0.41.1"))
    assert newer.servable
    assert [finding.code for finding in newer.findings] == [Code.UNKNOWN_ENGINE]
    assert adapter.inspect(make_adapter().parts(), BASE, replace(CPU, type="TGI")).reason == Code.UNKNOWN_ENGINE


def test_a_rank_in_rank_pattern_is_named_by_its_key() -> None:
    verdict = adapter.inspect(make_adapter(config={"rank_pattern": {"k_proj": 64}}).parts(), BASE, CPU)
    assert verdict.errors[0].field == "rank_pattern.k_proj"


def test_the_fix_names_a_limit_that_vllm_takes() -> None:
    verdict = adapter.inspect(make_adapter(rank=40).parts(), BASE, CPU)
    assert "--max-lora-rank 64" in verdict.errors[0].fix


@pytest.mark.parametrize(
    ("named", "base", "severity"),
    [
        pytest.param("acme/other", BASE, "warning", id="shapes decide"),
        pytest.param("acme/other", None, "error", id="nothing else to go by"),
        pytest.param("/home/me/llama", None, "warning", id="a path of the training machine"),
        pytest.param("Tiny/Llama", None, None, id="the same name in another case"),
        pytest.param(None, None, None, id="no name"),
    ],
)
def test_another_bases_name(named: str | None, base: adapter.Base | None, severity: str | None) -> None:
    files = make_adapter(config={"base_model_name_or_path": named})
    verdict = adapter.inspect(files.parts(), base, CPU, base_name="tiny/llama")
    found = {finding.severity.value for finding in verdict.findings if finding.code is Code.BASE_MISMATCH}
    assert found == ({severity} if severity else set())


def test_an_unknown_field_with_a_value_is_a_warning() -> None:
    verdict = adapter.inspect(make_adapter(config={"use_magic": True}).parts(), BASE, CPU)
    assert verdict.servable
    assert [(finding.code, finding.field) for finding in verdict.findings] == [(Code.UNKNOWN_FIELD, "use_magic")]


def test_the_summary_has_the_adapters_figures() -> None:
    files = make_adapter(targets=ALL, ranks={"v_proj": 16}, config={"rank_pattern": {"v_proj": 16}}, dtype="BF16")
    summary = adapter.inspect(files.parts(), BASE, CPU).summary
    assert (summary.rank, summary.lora_alpha, summary.scaling, summary.layers) == (16, 16.0, 2.0, 2)
    assert (summary.dtype, summary.target_modules) == ("BF16", tuple(sorted(ALL)))
    assert summary.parameters == len(files.files[adapter.WEIGHTS][summary_start(files) :]) // 2
    assert summary.size_bytes == sum(map(len, files.files.values()))


def summary_start(files: AdapterFiles) -> int:
    data = files.files[adapter.WEIGHTS]
    return adapter.parse_header(data, len(data)).data_start
