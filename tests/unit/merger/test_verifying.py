"""The second opinion: it agrees with what is right, and sees what is wrong by the least that matters."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from lora_merger.merging import MergeRequest, merge
from lora_merger.refusal import ExitCode, Refusal
from lora_merger.verifying import Checked, Verifier
from support.adapters import make_adapter
from support.checkpoints import write_base

TARGETS = ("q_proj", "down_proj", "embed_tokens", "lm_head")


def merge_and_spoil(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, name: str, ulps: int, verify: bool
) -> Refusal | None:
    """Merge; before it is verified, move each value of a tensor by so many ulps."""
    verify_for_real = Verifier.verify

    def spoil(self: Verifier) -> Checked:
        path = self.model / "model.safetensors"
        data = bytearray(path.read_bytes())
        length = int.from_bytes(data[:8], "little")
        entry = json.loads(data[8 : 8 + length])[name]
        start, stop = (8 + length + offset for offset in entry["data_offsets"])
        kind = {"F32": "<u4", "F16": "<u2", "BF16": "<u2"}[entry["dtype"]]
        bits = np.frombuffer(data[start:stop], kind) + np.array(ulps).astype(kind)
        data[start:stop] = bits.tobytes()
        path.write_bytes(data)
        return verify_for_real(self)

    monkeypatch.setattr(Verifier, "verify", spoil)
    request = MergeRequest(
        base=str(tmp_path / "base"), adapter=str(tmp_path / "adapter"), out=tmp_path / "out", verify=verify
    )
    try:
        merge(request)
    except Refusal as refusal:
        return refusal
    return None


@pytest.mark.parametrize("dtype", ["F32", "F16", "BF16"])
@pytest.mark.parametrize("verify", [True, False])
@pytest.mark.parametrize("name", ["model.layers.0.self_attn.q_proj.weight", "lm_head.weight"])
def test_values_that_are_off_are_seen(
    name: str, verify: bool, dtype: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_base(tmp_path / "base", dtype=dtype)
    make_adapter(targets=TARGETS).write(tmp_path / "adapter")
    ulps = 64 if dtype == "F32" else 2
    refusal = merge_and_spoil(tmp_path, monkeypatch, name=name, ulps=ulps, verify=verify)
    assert refusal is not None
    assert refusal.code == ExitCode.NOT_VERIFIED
    assert name in str(refusal)
    assert not (tmp_path / "out").exists()


def test_a_byte_that_should_be_the_base_s_own_is_seen_by_a_full_look(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_base(tmp_path / "base")
    make_adapter().write(tmp_path / "adapter")
    refusal = merge_and_spoil(tmp_path, monkeypatch, name="model.norm.weight", ulps=1, verify=True)
    assert "model.norm.weight should be the base's own bytes" in str(refusal)


@pytest.mark.parametrize("into", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("dtype", ["F32", "F16", "BF16"])
def test_all_that_is_right_is_found_right(dtype: str, into: str, tmp_path: Path) -> None:
    write_base(tmp_path / "base", dtype=dtype, shards=2)
    make_adapter(targets=TARGETS, rank=24).write(tmp_path / "adapter")
    merged = merge(
        MergeRequest(
            base=str(tmp_path / "base"),
            adapter=str(tmp_path / "adapter"),
            out=tmp_path / "out",
            dtype=into,  # type: ignore[arg-type]
            verify=True,
        )
    )
    assert merged.checked.tensors == 19


def test_what_was_found_wrong_is_not_kept_for_the_next_run(tmp_path: Path) -> None:
    write_base(tmp_path / "base")
    make_adapter(targets=TARGETS).write(tmp_path / "adapter")
    with pytest.MonkeyPatch.context() as patch:
        assert merge_and_spoil(tmp_path, patch, name="lm_head.weight", ulps=64, verify=True) is not None
    merged = merge(
        MergeRequest(base=str(tmp_path / "base"), adapter=str(tmp_path / "adapter"), out=tmp_path / "out", verify=True)
    )
    assert merged.resumed == 0
