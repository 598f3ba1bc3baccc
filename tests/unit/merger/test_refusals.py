"""What can't be merged exactly is refused by name before a byte is written, and says what to do."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from lora_merger.merging import MergeRequest, merge
from lora_merger.refusal import ExitCode, Refusal
from lora_operator.adapter import Code
from support.adapters import TINY_LLAMA, AdapterFiles, BaseShape, TensorData, make_adapter, other_base, tensor
from support.checkpoints import read_tensors, write_base

QUERY = "model.layers.0.self_attn.q_proj.weight"
MAGNITUDE = "base_model.model.model.layers.0.self_attn.q_proj.lora_magnitude_vector"


def refused(tmp_path: Path) -> Refusal:
    """Merge, and return why not; nothing must be left behind."""
    request = MergeRequest(base=str(tmp_path / "base"), adapter=str(tmp_path / "adapter"), out=tmp_path / "out")
    before = sorted(tmp_path.iterdir())
    with pytest.raises(Refusal) as caught:
        merge(request)
    assert not (tmp_path / "out").exists()
    # What a second run could go on from may stay.
    kept = () if caught.value.code is ExitCode.NOT_MERGEABLE else (".out.lora-merge",)
    assert [path for path in tmp_path.iterdir() if path not in before and path.name not in kept] == []
    return caught.value


ADAPTERS: dict[str, tuple[Callable[[], AdapterFiles], str]] = {
    "DoRA": (lambda: make_adapter(config={"use_dora": True}), "DoRA can't be merged exactly here; use PEFT's"),
    "DoRA's vectors": (
        lambda: make_adapter(tensors={MAGNITUDE: tensor(np.ones(128))}),
        "DoRA can't be merged exactly here",
    ),
    "biases": (lambda: make_adapter(config={"bias": "all"}), "trained biases can't be merged"),
    "modules_to_save": (lambda: make_adapter(config={"modules_to_save": ["lm_head"]}), "modules_to_save can't"),
    "PiSSA": (lambda: make_adapter(config={"init_lora_weights": "pissa"}), "changed the base"),
    "another method": (lambda: make_adapter(config={"peft_type": "LOHA"}), "another variant"),
    "NaN": (lambda: make_adapter().spoilt(nan=True), "NotFinite"),
    "another base's": (lambda: make_adapter(base=other_base()), "ShapeMismatch"),
    "a layer too many": (lambda: make_adapter(base=BaseShape(layers=3)), "LayerOutOfRange"),
    "half a pair": (
        lambda: make_adapter(tensors={"base_model.model.model.layers.0.self_attn.q_proj.lora_B.weight": None}),
        "UnpairedTensor",
    ),
    "a tensor that is no LoRA": (
        lambda: make_adapter(tensors={"base_model.model.lm_head.weight": tensor(np.ones((2048, 128)))}),
        "UnknownTensor",
    ),
    "embeddings beside it that are not the base's": (
        lambda: make_adapter(
            targets=["q_proj", "embed_tokens"],
            tensors={"base_model.model.model.embed_tokens.base_layer.weight": tensor(np.ones((2048, 128)))},
        ),
        "UnknownTensor",
    ),
    "another rank than its config's": (lambda: make_adapter(config={"r": 4}), "RankMismatch"),
    "a module that the config leaves out": (lambda: make_adapter(config={"target_modules": ["q_proj"]}), "NotTargeted"),
    "a float8": (lambda: make_adapter(dtype="F8_E5M2"), "is F8_E5M2: save it in one of F32"),
    "cut": (lambda: make_adapter().truncated(100), "TruncatedFile"),
    "a pickle": (lambda: make_adapter().pickle_only(), "PickleOnly"),
    "without a config": (lambda: make_adapter().with_file("adapter_config.json", None), "MissingConfig"),
}


@pytest.mark.parametrize("name", ADAPTERS)
def test_an_adapter_that_can_not_be_merged_exactly(name: str, tmp_path: Path) -> None:
    write_base(tmp_path / "base")
    make, words = ADAPTERS[name]
    make().write(tmp_path / "adapter")
    refusal = refused(tmp_path)
    assert words in str(refusal)
    assert refusal.code == ExitCode.NOT_MERGEABLE


@pytest.mark.parametrize("base", [other_base(), BaseShape(layers=3)])
def test_who_merges_is_not_told_how_to_serve(base: BaseShape, tmp_path: Path) -> None:
    write_base(tmp_path / "base")
    make_adapter(base=base).write(tmp_path / "adapter")
    told = str(refused(tmp_path))
    assert "To fix: merge it into the base it was trained on." in told
    assert "serve" not in told


def spoil(folder: Path, name: str) -> None:
    """Cut the last bytes off a file."""
    path = folder / name
    path.write_bytes(path.read_bytes()[:-10])


def edit_index(folder: Path, change: Callable[[dict[str, str]], object]) -> None:
    """Change the index's map."""
    path = folder / "model.safetensors.index.json"
    index = json.loads(path.read_text())
    change(index["weight_map"])
    path.write_text(json.dumps(index))


def bitsandbytes(folder: Path) -> None:
    write_base(folder, config={"quantization_config": {"quant_method": "bitsandbytes"}})


def fp8(folder: Path) -> None:
    write_base(folder, tensors={QUERY: ("F8_E4M3", (128, 128), bytes(128 * 128))})


def cut(folder: Path) -> None:
    spoil(write_base(folder, shards=3), "model-00002-of-00003.safetensors")


def incomplete(folder: Path) -> None:
    (write_base(folder, shards=3) / "model-00002-of-00003.safetensors").unlink()


def renamed(folder: Path) -> None:
    edit_index(write_base(folder, shards=2), lambda index: index.pop("lm_head.weight"))


def outside(folder: Path) -> None:
    edit_index(write_base(folder, shards=2), lambda index: index.update({"lm_head.weight": "../x.safetensors"}))


def pickled(folder: Path) -> None:
    (write_base(folder) / "model.safetensors").unlink()


BASES: dict[str, tuple[Callable[[Path], None], str]] = {
    "quantised by bitsandbytes": (bitsandbytes, "quantised (quantization_config in config.json: bitsandbytes)"),
    "quantised to float8": (fp8, "is F8_E4M3: it is quantised"),
    "cut": (cut, "model-00002-of-00003.safetensors of the base"),
    "incomplete": (incomplete, "names model-00002-of-00003.safetensors, which is missing"),
    "with another index": (renamed, "is not what the shards hold, for instance ['lm_head.weight']"),
    "with an index that leads elsewhere": (outside, "'../x.safetensors', which is no safetensors file beside it"),
    "pickled": (pickled, "only pytorch_model.bin, which can run code"),
}


@pytest.mark.parametrize("name", BASES)
def test_a_base_that_can_not_be_merged_into(name: str, tmp_path: Path) -> None:
    make, words = BASES[name]
    make(tmp_path / "base")
    make_adapter().write(tmp_path / "adapter")
    refusal = refused(tmp_path)
    assert words in str(refusal)
    assert refusal.code == ExitCode.NOT_MERGEABLE


@pytest.mark.parametrize("target", ["embed_tokens", "lm_head"])
def test_tied_embeddings_are_not_torn_apart(target: str, tmp_path: Path) -> None:
    write_base(tmp_path / "base", base=BaseShape(tied=True))
    make_adapter(targets=(target,)).write(tmp_path / "adapter")
    assert "Untie the base first" in str(refused(tmp_path))


def poisoned(name: str, dtype: str) -> dict[str, TensorData]:
    values = np.ones(TINY_LLAMA.weights()[name], np.float32)
    values[-1, -1] = np.nan
    return {name: tensor(values, dtype)}


@pytest.mark.parametrize("dtype", ["F32", "F16", "BF16"])
def test_a_weight_with_nan_is_not_merged_into(dtype: str, tmp_path: Path) -> None:
    write_base(tmp_path / "base", dtype=dtype, tensors=poisoned(QUERY, dtype))
    make_adapter().write(tmp_path / "adapter")
    refusal = refused(tmp_path)
    assert f"{QUERY}: NaN or Inf in the base" in str(refusal)
    assert refusal.code == ExitCode.NOT_MERGEABLE


def test_a_nan_that_is_cast_is_refused_and_one_that_is_copied_is_the_base_s_own_business(tmp_path: Path) -> None:
    base = write_base(tmp_path / "base", tensors=poisoned("lm_head.weight", "F32"))
    make_adapter().write(tmp_path / "adapter")
    request = MergeRequest(base=str(base), adapter=str(tmp_path / "adapter"), out=tmp_path / "out")
    with pytest.raises(Refusal, match=r"lm_head.weight: NaN or Inf in the base"):
        merge(replace(request, dtype="bfloat16"))
    merge(replace(request, verify=True))
    assert read_tensors(tmp_path / "out")["lm_head.weight"] == read_tensors(base)["lm_head.weight"]


def test_another_base_than_the_adapter_s_is_said(tmp_path: Path) -> None:
    snapshot = tmp_path / "models--acme--other" / "snapshots" / ("a" * 40)
    write_base(snapshot)
    make_adapter(config={"base_model_name_or_path": "acme/tiny"}).write(tmp_path / "adapter")
    merged = merge(MergeRequest(base=str(snapshot), adapter=str(tmp_path / "adapter"), out=tmp_path / "out"))
    assert [(warning.code, warning.found, warning.expected) for warning in merged.warnings] == [
        (Code.BASE_MISMATCH, "acme/tiny", "acme/other")
    ]


def test_a_sum_that_overflows_float16_ends_without_a_model(tmp_path: Path) -> None:
    high = tensor(np.full((128, 128), 65504.0), "F16")
    write_base(tmp_path / "base", dtype="F16", tensors={QUERY: high})
    make_adapter(config={"lora_alpha": 100_000}).write(tmp_path / "adapter")
    assert "once it is merged and rounded to F16" in str(refused(tmp_path))


def test_what_is_there_is_never_written_over(tmp_path: Path) -> None:
    write_base(tmp_path / "base")
    make_adapter().write(tmp_path / "adapter")
    (tmp_path / "out").mkdir()
    with pytest.raises(Refusal, match="is there already") as caught:
        merge(MergeRequest(base=str(tmp_path / "base"), adapter=str(tmp_path / "adapter"), out=tmp_path / "out"))
    assert caught.value.code == ExitCode.OUTPUT_EXISTS
    assert list((tmp_path / "out").iterdir()) == []


def test_a_directory_that_is_not_there(tmp_path: Path) -> None:
    make_adapter().write(tmp_path / "adapter")
    assert refused(tmp_path).code == ExitCode.NOT_FOUND


def test_too_little_space_is_told_before_a_byte_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_base(tmp_path / "base")
    make_adapter().write(tmp_path / "adapter")
    real = os.statvfs(tmp_path)
    few = os.statvfs_result((real.f_bsize, 4096, 100, 100, 100, *tuple(real)[5:]))
    monkeypatch.setattr("os.statvfs", lambda _: few)
    refusal = refused(tmp_path)
    assert refusal.code == ExitCode.NO_SPACE
    assert "409,600 bytes free" in str(refusal)
    assert not list((tmp_path / ".out.lora-merge" / "model").iterdir())


def test_a_file_that_may_not_grow_ends_cleanly_and_goes_on_later(tmp_path: Path) -> None:
    write_base(tmp_path / "base", shards=3)
    make_adapter().write(tmp_path / "adapter")
    command = [sys.executable, "-m", "lora_merger", *(str(tmp_path / name) for name in ("base", "adapter", "out"))]

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (600_000, resource.RLIM_INFINITY))

    ended = subprocess.run(command, preexec_fn=limit, capture_output=True, text=True, check=False)
    assert ended.returncode == ExitCode.NO_SPACE, ended.stderr
    assert "larger than this process may write" in ended.stderr
    assert "Traceback" not in ended.stderr
    assert not (tmp_path / "out").exists()
    again = subprocess.run(command, capture_output=True, text=True, check=False)
    assert again.returncode == ExitCode.OK, again.stderr


@pytest.mark.parametrize("inside", ["base", "adapter"])
def test_a_place_inside_what_is_read_is_refused(inside: str, tmp_path: Path) -> None:
    write_base(tmp_path / "base")
    make_adapter().write(tmp_path / "adapter")
    request = MergeRequest(
        base=str(tmp_path / "base"), adapter=str(tmp_path / "adapter"), out=tmp_path / inside / "merged"
    )
    with pytest.raises(Refusal, match=f"lies in {tmp_path / inside}, which is only read") as caught:
        merge(request)
    assert caught.value.code is ExitCode.USAGE


def test_an_empty_word_is_no_directory(tmp_path: Path) -> None:
    with pytest.raises(Refusal, match="an empty word is no directory"):
        merge(MergeRequest(base="", adapter="", out=tmp_path / "out"))
