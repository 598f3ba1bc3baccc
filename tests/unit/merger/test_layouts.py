"""A weight that could be stored either way round is merged where something tells which, and never by a guess."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from lora_merger.merging import MergeRequest, merge
from lora_merger.refusal import ExitCode, Refusal
from support.adapters import TensorData, make_adapter, safetensors, tensor
from support.checkpoints import read_tensors, values, write_base


def conv1d_base(folder: Path, *, transposed: bool, model_type: str, biases: bool) -> None:
    """Write a base with modules named as GPT-2's: a square c_proj, and a c_attn that is three times as wide."""
    wide = (128, 384) if transposed else (384, 128)
    random = np.random.default_rng(3)
    tensors: dict[str, TensorData | None] = {
        "transformer.h.0.attn.c_proj.weight": tensor(random.normal(size=(128, 128)).astype(np.float32)),
        "transformer.h.0.attn.c_attn.weight": tensor(random.normal(size=wide).astype(np.float32)),
    }
    if biases:
        tensors["transformer.h.0.attn.c_attn.bias"] = tensor(np.zeros(384, np.float32))
    write_base(folder, config={"model_type": model_type}, tensors=tensors)


def conv1d_adapter(folder: Path, *, transposed: bool) -> Path:
    """Write an adapter for the square module alone."""
    random = np.random.default_rng(4)
    name = "base_model.model.transformer.h.0.attn.c_proj.lora_{}.weight"
    halves = {
        name.format("A"): tensor(random.normal(size=(8, 128)).astype(np.float32)),
        name.format("B"): tensor(random.normal(size=(128, 8)).astype(np.float32)),
    }
    made = make_adapter(config={"target_modules": ["c_proj"], "fan_in_fan_out": transposed, "lora_alpha": 8})
    made.write(folder)
    (folder / "adapter_model.safetensors").write_bytes(safetensors(halves))
    return folder


@pytest.mark.parametrize("said", [True, False])
@pytest.mark.parametrize("model_type", ["my_gpt", None])
def test_a_square_weight_of_an_unknown_kind_is_not_merged_by_guess(model_type: str, said: bool, tmp_path: Path) -> None:
    conv1d_base(tmp_path / "base", transposed=True, model_type=model_type, biases=False)
    conv1d_adapter(tmp_path / "adapter", transposed=said)
    with pytest.raises(Refusal, match=r"transformer.h.0.attn.c_proj.weight is square") as caught:
        merge(MergeRequest(base=str(tmp_path / "base"), adapter=str(tmp_path / "adapter"), out=tmp_path / "out"))
    assert caught.value.code == ExitCode.NOT_MERGEABLE


@pytest.mark.parametrize("transposed", [True, False])
def test_a_square_weight_is_stored_as_its_relatives_whose_biases_tell(transposed: bool, tmp_path: Path) -> None:
    conv1d_base(tmp_path / "base", transposed=transposed, model_type="my_gpt", biases=True)
    halves = read_tensors(conv1d_adapter(tmp_path / "adapter", transposed=transposed))
    base = read_tensors(tmp_path / "base")
    request = MergeRequest(base=str(tmp_path / "base"), adapter=str(tmp_path / "adapter"), out=tmp_path / "out")
    merge(request)
    a, b = (values(next(data for name, data in halves.items() if f"lora_{half}" in name)) for half in "AB")
    name = "transformer.h.0.attn.c_proj.weight"
    product = (b @ a).T if transposed else b @ a
    assert np.allclose(values(read_tensors(tmp_path / "out")[name]), values(base[name]) + product, atol=1e-4)


@pytest.mark.parametrize("said", [True, False])
def test_a_type_that_is_known_needs_no_evidence(said: bool, tmp_path: Path) -> None:
    conv1d_base(tmp_path / "base", transposed=True, model_type="gpt2", biases=False)
    halves = read_tensors(conv1d_adapter(tmp_path / "adapter", transposed=said))
    base = read_tensors(tmp_path / "base")
    merge(MergeRequest(base=str(tmp_path / "base"), adapter=str(tmp_path / "adapter"), out=tmp_path / "out"))
    a, b = (values(next(data for name, data in halves.items() if f"lora_{half}" in name)) for half in "AB")
    name = "transformer.h.0.attn.c_proj.weight"
    assert np.allclose(values(read_tensors(tmp_path / "out")[name]), values(base[name]) + (b @ a).T, atol=1e-4)
