"""What a finding says of an adapter that is written otherwise than PEFT writes it: the cause, and a fix that fits.

The verdicts themselves are held by the corpus.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from lora_operator import adapter
from lora_operator.adapter import CONFIG, WEIGHTS, Code, EngineLimits, Finding, Verdict
from lora_operator.adapter.findings import TEXT_LIMIT
from support.adapters import (
    TINY_LLAMA,
    TINY_PHI3,
    AdapterFiles,
    BaseShape,
    TensorData,
    base_header,
    make_adapter,
    safetensors,
    tensor,
)

CPU = EngineLimits(max_lora_rank=16, device="cpu", dtype="float32", version="0.32.0")
ALL = TINY_LLAMA.linear
PREFIX = "base_model.model."
Q0 = "model.layers.0.self_attn.q_proj"
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 13648688\n"
PAGE = b"\n<!DOCTYPE html>\n<html><head><title>Hugging Face</title></head></html>"


def judge(files: AdapterFiles, base: BaseShape = TINY_LLAMA) -> Verdict:
    return adapter.inspect(files.parts(), adapter.base_from_config(base.config()), CPU)


def named(change: Callable[[str], str], **options: object) -> AdapterFiles:
    """Make the plain adapter with other names for its tensors."""
    made = make_adapter(**options)  # type: ignore[arg-type]
    data = made.files[WEIGHTS]
    header = adapter.parse_header(data, len(data))
    tensors: dict[str, TensorData] = {
        change(name): (told.dtype, told.shape, data[header.data_start + told.begin : header.data_start + told.end])
        for name, told in header.tensors.items()
    }
    return made.with_file(WEIGHTS, safetensors(tensors))


def only(verdict: Verdict, code: Code) -> Finding:
    """Return the first finding of a verdict in which there is one kind of finding alone, said in whole sentences."""
    assert {finding.code for finding in verdict.findings} == {code}, verdict.findings
    first = verdict.findings[0]
    texts = (first.found, first.expected, first.fix)
    assert all(len(text) <= TEXT_LIMIT and not text.endswith("...") for text in texts)
    return first


@pytest.mark.parametrize(
    ("before", "after", "cause"),
    [
        pytest.param("model.layers", "_orig_mod.model.layers", "unwrap the model", id="torch.compile"),
        pytest.param("model.layers", "module.model.layers", "unwrap the model", id="DataParallel"),
        pytest.param(
            "model.layers.",
            "_fsdp_wrapped_module.model.layers._fsdp_wrapped_module.",
            "unwrap the model",
            id="FSDP",
        ),
        pytest.param(".self_attn", "._checkpoint_wrapped_module.self_attn", "unwrap the model", id="checkpointing"),
        pytest.param("model.layers", "language_model.model.layers", "by its own class", id="a model that sees"),
        pytest.param("model.layers", "model.language_model.layers", "by its own class", id="one of today"),
        pytest.param("model.layers", "layers", "AutoModelForCausalLM", id="AutoModel"),
        pytest.param("model.layers", "model.base_model.model.layers", "PEFT on the model once", id="PEFT within"),
    ],
)
def test_names_of_a_wrapped_model_are_told_from_another_base(before: str, after: str, cause: str) -> None:
    files = named(lambda name: name.replace(before, after), targets=ALL)
    told = only(judge(files), Code.UNKNOWN_MODULE)
    full = told.expected.partition(",")[0]
    assert full in TINY_LLAMA_MODULES
    assert "as the base calls it" in told.expected
    assert cause in told.fix
    assert f"{PREFIX}{full}.lora_A.weight" in told.fix
    assert "it was trained on" not in told.fix


TINY_LLAMA_MODULES = {TINY_LLAMA.module(layer, name) for layer in range(2) for name in ALL}


def test_a_name_like_the_bases_with_another_shape_is_of_another_base() -> None:
    files = named(lambda name: name.replace("model.layers", "_orig_mod.model.layers"), base=BaseShape(hidden=64))
    told = next(finding for finding in judge(files).errors if finding.code is Code.UNKNOWN_MODULE)
    assert "serve it on the base it was trained on" in told.fix


def test_what_sees_is_no_misnamed_part_of_the_base() -> None:
    files = named(lambda name: name.replace("model.layers", "vision_tower.layers"))
    told = next(finding for finding in judge(files).errors if finding.code is Code.UNKNOWN_MODULE)
    assert "serve it on the base it was trained on" in told.fix


def test_no_name_is_proposed_that_the_file_has_already() -> None:
    wrapped = {
        f"{PREFIX}_orig_mod.{Q0}.lora_{half}.weight": tensor(np.ones(shape))
        for half, shape in (("A", (8, 128)), ("B", (128, 8)))
    }
    told = only(judge(make_adapter(tensors=wrapped)), Code.UNKNOWN_MODULE)
    assert "unwrap the model" in told.fix
    assert "rename" not in told.fix


def test_names_of_a_wrapped_model_are_told_for_an_unknown_architecture_too() -> None:
    base = adapter.base_from_headers([base_header()], {"model_type": "mystery"})
    files = named(lambda name: name.replace("model.layers", "_orig_mod.model.layers"))
    verdict = adapter.inspect(files.parts(), base, CPU)
    assert verdict.compatible == "Unknown"
    told = next(finding for finding in verdict.errors if finding.code is Code.BASE_NOT_READABLE)
    assert "unwrap the model" in told.fix


@pytest.mark.parametrize(
    ("base", "targets", "expected", "fix"),
    [
        (TINY_PHI3, ["q_proj", "v_proj"], "qkv_proj", "target_modules with qkv_proj)"),
        (TINY_PHI3, ["up_proj"], "gate_up_proj", "target_modules with gate_up_proj)"),
    ],
)
def test_projections_apart_are_told_of_a_base_that_has_them_in_one(
    base: BaseShape, targets: list[str], expected: str, fix: str
) -> None:
    told = only(judge(make_adapter(targets=targets), base), Code.UNKNOWN_MODULE)
    assert told.expected.startswith(f"{expected}, which this base has in the place of ")
    assert targets[0] in told.expected
    assert fix in told.fix


def test_projections_in_one_are_told_of_a_base_that_has_them_apart() -> None:
    told = only(judge(make_adapter(base=TINY_PHI3, targets=["qkv_proj"])), Code.UNKNOWN_MODULE)
    assert told.expected == "q_proj, k_proj, v_proj, which this base has in the place of qkv_proj"
    assert "target_modules with q_proj, k_proj, v_proj" in told.fix
    assert "a base that has qkv_proj" in told.fix


def test_targets_that_no_module_has_are_answered_with_one_that_the_base_has() -> None:
    planned = adapter.from_config(make_adapter(config={"target_modules": ["q_proj"]}).files[CONFIG])
    verdict = adapter.inspect(planned, adapter.base_from_config(TINY_PHI3.config()), CPU)
    told = next(finding for finding in verdict.errors if finding.code is Code.UNKNOWN_MODULE)
    assert told.expected == "modules of the base, e.g. qkv_proj"


def bare(name: str) -> str:
    return name.removeprefix(PREFIX)


FOREIGN: Mapping[str, tuple[Callable[[str], str], str, str]] = {
    "MLX": (lambda name: bare(name).replace("lora_A.weight", "lora_a").replace("lora_B.weight", "lora_b"),
            "MLX", "mlx_lm.fuse"),
    "torchtune": (
        lambda name: bare(name).removeprefix("model.").replace("self_attn", "attn").replace("lora_A", "lora_a")
        .replace("lora_B", "lora_b"),
        "torchtune", "FullModelHFCheckpointer"),
    "NeMo": (
        lambda name: bare(name).replace("self_attn", "self_attention").replace("lora_A", "adapter.linear_in")
        .replace("lora_B", "adapter.linear_out"),
        "NeMo", "hf-peft"),
    "kohya": (
        lambda name: "lora_te_" + bare(name).replace(".", "_").replace("_lora_A_", ".lora_down.")
        .replace("_lora_B_", ".lora_up."),
        "kohya", "convert"),
    "diffusers": (lambda name: bare(name).replace("model.layers", "transformer.transformer_blocks"),
                  "diffusers", "language model"),
    "loralib": (lambda name: bare(name).removesuffix(".weight"), "loralib", f"{PREFIX}<module>.lora_A.weight"),
    "LitGPT": (
        lambda name: bare(name).removesuffix(".weight").replace("model.layers", "transformer.h")
        .replace("self_attn.q_proj", "attn.qkv").replace("self_attn.v_proj", "attn.proj"),
        "LitGPT", "litgpt merge_lora"),
    "the adapter's name": (lambda name: name.replace(".weight", ".default.weight"), ".default", "take .default out"),
    "no prefix": (bare, "without base_model.model.", "put base_model.model. in front"),
    "the prefix twice": (lambda name: PREFIX + name, "twice", "take one base_model.model. out"),
    "PEFT in a wrapper": (lambda name: f"_orig_mod.{name}", "wrapped", "unwrap the model"),
    "names of nobody": (lambda name: name.replace("lora_A", "lora_left").replace("lora_B", "lora_right"),
                        "in the file", "save_pretrained"),
}  # fmt: skip


@pytest.mark.parametrize("name", FOREIGN)
def test_tensors_that_are_not_named_as_peft_names_them_get_advice_for_their_format(name: str) -> None:
    change, found, fix = FOREIGN[name]
    told = only(judge(named(change)), Code.UNKNOWN_TENSOR)
    assert found in told.found
    assert fix in told.fix
    assert "save_embedding_layers" not in told.fix


def test_a_foreign_adapter_of_448_tensors_is_told_in_a_few_findings() -> None:
    verdict = judge(named(FOREIGN["MLX"][0], base=BaseShape(layers=32), targets=ALL))
    assert len(verdict.findings) == 16
    assert "and 432 more" in verdict.findings[-1].found


@pytest.mark.parametrize(
    ("name", "advice"),
    [
        (f"{PREFIX}lm_head.weight", "modules_to_save"),
        (f"{PREFIX}model.layers.0.mlp.up_proj.base_layer.weight", "save_embedding_layers=False"),
        (f"{PREFIX}{Q0}.lora_B.bias", "train without bias"),
        (f"{PREFIX}model.embed_tokens.trainable_tokens_delta", "trainable_token_indices"),
    ],
)
def test_whole_weights_saved_along_keep_their_advice(name: str, advice: str) -> None:
    told = only(judge(make_adapter(tensors={name: tensor(np.ones((8, 8)))})), Code.UNKNOWN_TENSOR)
    assert advice in told.fix


@pytest.mark.parametrize("module", [Q0, "model.layers.0.mlp.up_proj", "model.layers.1.mlp.down_proj"])
def test_matrices_the_other_way_round_are_called_that(module: str) -> None:
    out, into = TINY_LLAMA.of(module.rpartition(".")[2])
    changed = {f"{PREFIX}{module}.lora_A.weight": tensor(np.ones((into, 8)))}
    changed |= {f"{PREFIX}{module}.lora_B.weight": tensor(np.ones((8, out)))}
    verdict = judge(make_adapter(targets=ALL, tensors=changed))
    assert {finding.code for finding in verdict.findings} == {Code.RANK_MISMATCH, Code.SHAPE_MISMATCH}
    for finding in verdict.findings:
        wanted = [8, into] if "lora_A" in finding.field else [out, 8]
        assert finding.found == f"{wanted[::-1]}, transposed"
        assert finding.expected.startswith(str(wanted))
        assert "transpose lora_A and lora_B" in finding.fix


@pytest.mark.parametrize("rank", [4, 128])
def test_another_rank_is_not_called_transposed(rank: int) -> None:
    files = make_adapter(targets=["q_proj"], config={"r": rank})
    verdict = adapter.inspect(
        files.parts(), adapter.base_from_config(TINY_LLAMA.config()), replace(CPU, max_lora_rank=128)
    )
    told = only(verdict, Code.RANK_MISMATCH)
    assert told.fix.startswith("take the config it was trained with; ")


@pytest.mark.parametrize(
    ("kind", "found", "fix"),
    [
        pytest.param({"peft_type": None}, "missing", 'write "LORA"', id="missing"),
        pytest.param({"peft_type": "lora"}, '"lora"', 'write "LORA"', id="in lower case"),
        pytest.param({"peft_type": "IA3"}, '"IA3"', "convert_to_lora", id="another"),
    ],
)
def test_a_kind_that_is_not_written_is_told_from_another_kind(kind: dict[str, object], found: str, fix: str) -> None:
    told = only(judge(make_adapter(config=kind)), Code.UNSUPPORTED_VARIANT)
    assert told.found == found
    assert fix in told.fix


@pytest.mark.parametrize(
    ("field", "value", "found"),
    [
        ("r", "8", '"8"'),
        ("lora_alpha", "16", '"16"'),
        ("lora_dropout", "0.05", '"0.05"'),
        ("use_dora", "False", '"False"'),
        ("use_rslora", "no", '"no"'),
        ("use_qalora", "False", '"False"'),
        ("lora_bias", "False", '"False"'),
        ("bias", "None", '"None"'),
        ("layers_pattern", 7, "7"),
        ("init_lora_weights", "True", '"True"'),
        ("eva_config", "{}", '"{}"'),
        ("task_type", "causal_lm", '"causal_lm"'),
        ("modules_to_save", "None", '"None"'),
    ],
)
def test_a_text_in_the_place_of_another_value_is_shown_in_quotes(field: str, value: object, found: str) -> None:
    told = next(finding for finding in judge(make_adapter(config={field: value})).findings if finding.field == field)
    assert told.found == found


@pytest.mark.parametrize(
    ("field", "value", "plain"),
    [
        ("use_dora", "False", "false"),
        ("lora_bias", "false", "false"),
        ("use_qalora", "False", "false"),
        ("init_lora_weights", "True", "true"),
        ("modules_to_save", "None", "null"),
    ],
)
def test_what_quotes_alone_make_wrong_is_to_be_written_without(field: str, value: str, plain: str) -> None:
    told = next(finding for finding in judge(make_adapter(config={field: value})).errors if finding.field == field)
    assert told.fix == f"write {plain} in {CONFIG}, without quotes"


@pytest.mark.parametrize("field", ["rank_pattern", "alpha_pattern"])
def test_a_text_in_a_pattern_is_shown_in_quotes(field: str) -> None:
    assert judge(make_adapter(config={field: {"v_proj": "8"}})).errors[0].found == '"8"'


@pytest.mark.parametrize(
    ("data", "found", "fix"),
    [
        pytest.param(POINTER, "a git-lfs pointer", "git lfs pull", id="a git-lfs pointer"),
        pytest.param(PAGE, "a web page", "hf download", id="a web page"),
        pytest.param(b"PK\x03\x04\x00\x00\x08\x08" + b"\0" * 80, "a zip archive", "safe_serialization", id="a pickle"),
    ],
)
@pytest.mark.parametrize(("name", "code"), [(WEIGHTS, Code.MALFORMED_HEADER), (CONFIG, Code.MALFORMED_CONFIG)])
def test_another_thing_in_the_place_of_a_file_is_called_by_its_name(
    name: str, code: Code, data: bytes, found: str, fix: str, tmp_path: Path
) -> None:
    files = make_adapter().with_file(name, data)
    opened = adapter.open_directory(files.write(tmp_path))
    for told in (judge(files), adapter.inspect(opened, adapter.base_from_config(TINY_LLAMA.config()), CPU)):
        assert found in only(told, code).found
        assert fix in told.errors[0].fix


@pytest.mark.parametrize(
    ("name", "fix"),
    [
        ("adapter.safetensors", f"rename it to {WEIGHTS}"),
        ("pytorch_lora_weights.safetensors", "diffusers"),
        ("adapters.safetensors", "mlx_lm.fuse"),
        ("model-00001-of-00002.safetensors", "serve it as a model"),
        ("model.safetensors", "serve it as a model"),
    ],
)
@pytest.mark.parametrize("pickle", [False, True])
def test_weights_under_another_name_are_told(name: str, fix: str, pickle: bool, tmp_path: Path) -> None:
    files = make_adapter()
    files = files.with_file(name, files.files[WEIGHTS]).with_file(WEIGHTS, None)
    code = Code.MISSING_FILE
    if pickle:
        files, code = files.with_file("adapter_model.bin", b"\x80\x02."), Code.PICKLE_ONLY
    opened = adapter.open_directory(files.write(tmp_path))
    for verdict in (judge(files), adapter.inspect(opened, adapter.base_from_config(TINY_LLAMA.config()), CPU)):
        told = only(verdict, code)
        assert name in told.found
        assert told.field == WEIGHTS
        assert fix in told.fix


def test_other_files_beside_the_weights_are_not_spoken_of(tmp_path: Path) -> None:
    files = make_adapter().with_file("adapters.safetensors", b"else")
    assert judge(files).findings == ()
    opened = adapter.open_directory(files.write(tmp_path))
    assert "adapters.safetensors" not in opened.files


@pytest.mark.parametrize(
    ("files", "code"),
    [
        pytest.param(make_adapter().truncated(), Code.TRUNCATED_FILE, id="truncated"),
        pytest.param(make_adapter().with_file(WEIGHTS, b"\xff" * 64), Code.MALFORMED_HEADER, id="malformed"),
        pytest.param(make_adapter().with_file(WEIGHTS, None), Code.MISSING_FILE, id="missing"),
        pytest.param(make_adapter().with_file(WEIGHTS, safetensors({})), Code.NO_TENSORS, id="empty"),
        pytest.param(
            make_adapter(config={"init_lora_weights": False}).truncated(), Code.TRUNCATED_FILE, id="a random init"
        ),
    ],
)
def test_nothing_is_said_that_follows_from_weights_that_could_not_be_read(files: AdapterFiles, code: Code) -> None:
    only(judge(files), code)


def test_missing_tensors_are_still_told_where_the_weights_were_read() -> None:
    config = json.loads(make_adapter().files[CONFIG]) | {"target_modules": list(ALL)}
    verdict = judge(make_adapter().with_file(CONFIG, json.dumps(config).encode()))
    assert [finding.code for finding in verdict.findings] == [Code.MISSING_TENSOR]
