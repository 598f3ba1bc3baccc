"""Whole embeddings that PEFT saved beside a LoRA on them: compared with the base's own, where that is at hand."""

import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from lora_operator import adapter
from lora_operator.adapter import Base, Code, EngineLimits, Severity, Verdict
from support.adapters import TINY_LLAMA, AdapterFiles, BaseShape, make_adapter, safetensors, tensor

CPU = EngineLimits(max_lora_rank=16, device="cpu", dtype="float32", version="0.32.0")
COPY = "base_model.model.model.embed_tokens.base_layer.weight"
EMBEDDING = np.random.default_rng(7).standard_normal((2048, 128)).astype("f4")
# What bfloat16 holds as well.
ROUND = ((EMBEDDING.view("u4") >> 16) << 16).view("f4")


def base_with(embedding: np.ndarray, folder: Path, *, dtype: str = "F32", shape: BaseShape = TINY_LLAMA) -> Base:
    tensors = {name: tensor(np.zeros(sizes)) for name, sizes in shape.weights().items()}
    tensors["model.embed_tokens.weight"] = tensor(embedding, dtype)
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(shape.config()))
    (folder / "model.safetensors").write_bytes(safetensors(tensors))
    base = adapter.base_from_directory(folder)
    assert base is not None
    return base


def with_copy(embedding: np.ndarray, dtype: str = "F32", name: str = COPY) -> AdapterFiles:
    return make_adapter(targets=["q_proj", "embed_tokens"], tensors={name: tensor(embedding, dtype)})


def judged(files: AdapterFiles, base: Base, tmp_path: Path) -> Verdict:
    return adapter.inspect(adapter.open_directory(files.write(tmp_path / "adapter"), stored=base.stored), base, CPU)


@pytest.mark.parametrize(("of_base", "of_copy"), [("F32", "F32"), ("BF16", "F32"), ("F32", "BF16"), ("BF16", "BF16")])
def test_a_copy_of_the_base_s_own_embedding_is_served(of_base: str, of_copy: str, tmp_path: Path) -> None:
    verdict = judged(with_copy(ROUND, of_copy), base_with(ROUND, tmp_path / "base", dtype=of_base), tmp_path)
    assert verdict.servable
    assert verdict.findings == ()


def test_a_copy_that_differs_in_its_last_value_is_refused(tmp_path: Path) -> None:
    trained = EMBEDDING.copy()
    trained[-1, -1] += 1
    verdict = judged(with_copy(trained), base_with(EMBEDDING, tmp_path / "base"), tmp_path)
    assert [(finding.code, finding.field) for finding in verdict.errors] == [(Code.UNKNOWN_TENSOR, COPY)]
    assert "other values than the base's" in verdict.message()


def test_a_copy_that_was_rounded_is_not_the_base_s_and_to_be_left_out(tmp_path: Path) -> None:
    verdict = judged(with_copy(EMBEDDING, "BF16"), base_with(EMBEDDING, tmp_path / "base"), tmp_path)
    assert not verdict.servable
    assert "in BF16" in verdict.message()
    assert "only the dtype rounded it, save the adapter again" in verdict.message()


def test_zero_is_zero_whatever_its_sign(tmp_path: Path) -> None:
    base = base_with(np.zeros((2048, 128)), tmp_path / "base")
    assert judged(with_copy(-np.zeros((2048, 128))), base, tmp_path).servable


def test_a_base_that_has_become_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    base = base_with(EMBEDDING, tmp_path / "base")
    path = tmp_path / "base" / "model.safetensors"
    path.unlink()
    os.mkfifo(path)
    assert judged(with_copy(EMBEDDING), base, tmp_path).compatible == "Unknown"


def test_a_copy_in_a_dtype_that_is_not_read_is_not_the_base_s(tmp_path: Path) -> None:
    ones = np.ones((2048, 128))
    assert not judged(with_copy(ones, "I32"), base_with(ones, tmp_path / "base"), tmp_path).servable


def test_who_reads_the_header_alone_says_that_it_was_not_compared(tmp_path: Path) -> None:
    base = base_with(EMBEDDING, tmp_path / "base")
    verdict = adapter.inspect(with_copy(ROUND).parts(), base, CPU)
    assert verdict.servable
    assert [(finding.code, finding.severity) for finding in verdict.findings] == [(Code.NOT_CHECKED, Severity.WARNING)]


def test_without_the_base_s_weights_nothing_is_known(tmp_path: Path) -> None:
    base = adapter.base_from_config(TINY_LLAMA.config())
    assert base is not None
    verdict = judged(with_copy(EMBEDDING), base, tmp_path)
    assert verdict.compatible == "Unknown"
    assert "save_embedding_layers=False" in verdict.message()


def test_a_base_that_has_vanished_meanwhile_leaves_it_unknown(tmp_path: Path) -> None:
    base = base_with(EMBEDDING, tmp_path / "base")
    (tmp_path / "base" / "model.safetensors").unlink()
    assert judged(with_copy(EMBEDDING), base, tmp_path).compatible == "Unknown"


def test_a_base_that_was_cut_meanwhile_is_not_equal(tmp_path: Path) -> None:
    base = base_with(EMBEDDING, tmp_path / "base")
    path = tmp_path / "base" / "model.safetensors"
    path.write_bytes(path.read_bytes()[:1000])
    assert not judged(with_copy(EMBEDDING), base, tmp_path).servable


@pytest.mark.parametrize("level", ["header", "full"])
def test_a_copy_beside_no_lora_is_refused(level: str, tmp_path: Path) -> None:
    base = base_with(EMBEDDING, tmp_path / "base")
    files = make_adapter(tensors={COPY: tensor(EMBEDDING)})
    folder = files.write(tmp_path / "adapter")
    opened = adapter.open_directory(folder, level=level, stored=base.stored)  # type: ignore[arg-type]
    verdict = adapter.inspect(opened, base, CPU)
    assert [finding.code for finding in verdict.errors] == [Code.UNKNOWN_TENSOR]
    assert "beside no LoRA" in verdict.message()


def test_a_tied_head_is_a_copy_of_the_embedding(tmp_path: Path) -> None:
    tied = replace(TINY_LLAMA, tied=True)
    base = base_with(EMBEDDING, tmp_path / "base", shape=tied)
    name = COPY.replace("model.model.embed_tokens", "model.lm_head")
    files = make_adapter(base=tied, targets=["q_proj", "lm_head"], tensors={name: tensor(EMBEDDING)})
    opened = adapter.open_directory(files.write(tmp_path / "adapter"), stored=base.stored)
    assert opened.copies == {name: True}
    gpu = replace(CPU, device="cuda")
    assert {finding.code for finding in adapter.inspect(opened, base, gpu).findings} == {Code.LM_HEAD_NOT_SUPPORTED}
