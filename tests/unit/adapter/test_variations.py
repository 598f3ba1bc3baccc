"""Variations that no list has: whatever is chosen, a plain LoRA is servable, and one thing wrong is found."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lora_operator import adapter
from lora_operator.adapter import CONFIG, WEIGHTS, Code, Severity, Verdict
from support.adapter_corpus import CPU
from support.adapter_corpus.case import ALL
from support.adapters import PREFIX, TINY_LLAMA, AdapterFiles, make_adapter, safetensors, tensor

BASE = adapter.base_from_config(TINY_LLAMA.config())
# A module in rank_pattern: by its name, or by a regex that matches it and no other.
WAYS_TO_WRITE: tuple[Callable[[str], str], ...] = (
    str,
    lambda name: f"layers.0.x|{name}",
    lambda name: rf"model\..*\.{name}",
    lambda name: f"[{name[0]}]{name[1:]}",
)
DTYPES = ("F32", "F16", "BF16", "F64", "F8_E5M2", "F8_E4M3")


def judge(files: AdapterFiles, folder: Path) -> Verdict:
    for old in folder.glob("*"):
        old.unlink()
    return adapter.inspect(adapter.open_directory(files.write(folder)), BASE, CPU)


@st.composite
def plain(draw: st.DrawFn) -> AdapterFiles:
    """Draw an adapter that PEFT could have saved: ranks and alphas by patterns, any dtype, any targets."""
    targets = draw(st.lists(st.sampled_from(ALL), min_size=1, unique=True))
    init = draw(st.sampled_from([True, False, "gaussian", "eva", "mica", "orthogonal", "lora_ga"]))
    sizes = st.integers(1, 8).map(lambda half: 2 * half) if init == "orthogonal" else st.integers(1, 16)
    rank = draw(sizes)
    ranks = draw(st.dictionaries(st.sampled_from(targets), sizes))
    written = draw(st.sampled_from(WAYS_TO_WRITE))
    config = {
        "rank_pattern": {written(name): size for name, size in ranks.items()},
        "alpha_pattern": draw(st.dictionaries(st.sampled_from(targets), st.floats(-64, 64, allow_nan=False))),
        "lora_alpha": draw(st.integers(-64, 64)),
        "use_rslora": draw(st.booleans()),
        "init_lora_weights": init,
        "lora_dropout": draw(st.floats(0, 1)),
        "fan_in_fan_out": draw(st.booleans()),
        "exclude_modules": draw(st.sampled_from([None, ["lm_head"], ".*vision.*"])),
    }
    return make_adapter(targets=targets, rank=rank, ranks=ranks, dtype=draw(st.sampled_from(DTYPES)), config=config)


@given(plain())
def test_a_plain_lora_is_servable_whatever_its_sizes(
    tmp_path_factory: pytest.TempPathFactory, files: AdapterFiles
) -> None:
    verdict = judge(files, tmp_path_factory.getbasetemp() / "plain")
    assert verdict.servable, verdict.findings
    assert verdict.findings == ()


@given(plain(), st.data())
def test_one_value_that_is_not_finite_is_found_wherever_it_is(
    tmp_path_factory: pytest.TempPathFactory, files: AdapterFiles, data: st.DataObject
) -> None:
    raw = bytearray(files.files[WEIGHTS])
    header = adapter.parse_header(bytes(raw), len(raw))
    name = data.draw(st.sampled_from(sorted(header.tensors)))
    found = header.tensors[name]
    size = (found.end - found.begin) // found.elements
    nan = tensor(np.array([np.nan]), found.dtype)[2]
    start = header.data_start + found.begin + size * data.draw(st.integers(0, found.elements - 1))
    raw[start : start + size] = nan
    verdict = judge(files.with_file(WEIGHTS, bytes(raw)), tmp_path_factory.getbasetemp() / "nan")
    assert [(finding.code, finding.field) for finding in verdict.errors] == [(Code.NOT_FINITE, name)]


@given(plain(), st.data())
def test_one_tensor_gone_or_of_another_size_is_found(
    tmp_path_factory: pytest.TempPathFactory, files: AdapterFiles, data: st.DataObject
) -> None:
    raw = files.files[WEIGHTS]
    header = adapter.parse_header(raw, len(raw))
    name = data.draw(st.sampled_from(sorted(header.tensors)))
    kept = {
        other: (found.dtype, found.shape, raw[header.data_start + found.begin : header.data_start + found.end])
        for other, found in header.tensors.items()
    }
    rows, columns = header.tensors[name].shape
    other = data.draw(
        st.sampled_from([None, (rows + 1, columns), (rows, columns + 1), (columns, rows, 1), (rows * columns,)])
    )
    changed = {**kept, name: tensor(np.ones(other)) if other else None}
    whole = {key: value for key, value in changed.items() if value is not None}
    verdict = judge(files.with_file(WEIGHTS, safetensors(whole)), tmp_path_factory.getbasetemp() / "sizes")
    expected = {Code.UNPAIRED_TENSOR} if other is None else {Code.SHAPE_MISMATCH, Code.RANK_MISMATCH}
    assert {finding.code for finding in verdict.errors} & expected
    assert any(finding.field.startswith(name.rpartition(".lora_")[0]) for finding in verdict.errors)


@given(plain(), st.sampled_from([k for k in make_adapter().config if k not in ("r", "lora_alpha")]))
def test_a_field_that_is_missing_is_what_pefts_default_makes_of_it(
    tmp_path_factory: pytest.TempPathFactory, files: AdapterFiles, field: str
) -> None:
    config = {key: value for key, value in files.config.items() if key != field}
    verdict = judge(files.with_file(CONFIG, json.dumps(config).encode()), tmp_path_factory.getbasetemp() / "fields")
    needed = {"target_modules", "peft_type"} | ({"rank_pattern"} if files.config["rank_pattern"] else set())
    errors = {finding.field for finding in verdict.findings if finding.severity is Severity.ERROR}
    assert bool(errors) <= (field in needed), verdict.findings
    assert errors or field not in ("target_modules", "peft_type")
    assert all(error in ("target_modules", "peft_type") or error.startswith(PREFIX) for error in errors)
