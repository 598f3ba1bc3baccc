"""What a merge writes: every weight as by a few lines of numpy, all else byte for byte, and nothing in between."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

import numpy as np
import pytest

from lora_merger.merging import MergeRequest, merge
from lora_merger.transfer import Range, copy_range
from lora_operator.adapter import parse_header
from support.adapters import BaseShape, make_adapter, tensor
from support.checkpoints import BESIDE, files_of, read_tensors, values, write_base

TARGETS = ("q_proj", "v_proj", "down_proj")
ENDS = ("embed_tokens", "lm_head")


def run(tmp_path: Path, **request: object) -> Path:
    """Merge <tmp_path>/adapter into <tmp_path>/base."""
    out = tmp_path / "out"
    merge(MergeRequest(base=str(tmp_path / "base"), adapter=str(tmp_path / "adapter"), out=out, **request))  # type: ignore[arg-type]
    return out


def expected(base: dict[str, np.ndarray], adapter: Path, scaling: float) -> dict[str, np.ndarray]:
    """Merge in float32, tensor by tensor."""
    halves = {name: values(data) for name, data in read_tensors(adapter).items()}
    merged = dict(base)
    for name, a in halves.items():
        if name.endswith(".lora_A.weight"):
            module = name.removeprefix("base_model.model.").removesuffix(".lora_A.weight")
            b = halves[name.replace("lora_A", "lora_B")]
            merged[f"{module}.weight"] = base[f"{module}.weight"] + (b @ a) * np.float32(scaling)
    return merged


@pytest.mark.parametrize("shards", [1, 4])
@pytest.mark.parametrize("dtype", ["F32", "F16", "BF16"])
def test_each_weight_is_base_and_product_rounded_once(dtype: str, shards: int, tmp_path: Path) -> None:
    base = write_base(tmp_path / "base", dtype=dtype, shards=shards)
    adapter = make_adapter(targets=TARGETS, rank=8, config={"lora_alpha": 20}).write(tmp_path / "adapter")
    out = read_tensors(run(tmp_path))
    before = {name: values(data) for name, data in read_tensors(base).items()}
    wanted = expected(before, adapter, 2.5)
    half_ulp = {"F32": 2.0**-24, "F16": 2.0**-11, "BF16": 2.0**-8}[dtype]
    for name, data in out.items():
        assert np.all(np.abs(values(data) - wanted[name]) <= np.abs(wanted[name]) * half_ulp + 1e-7), name
    changed = {name for name in out if out[name][2] != read_tensors(base)[name][2]}
    assert changed == {name for name in out if name.endswith(tuple(f"{target}.weight" for target in TARGETS))}


@pytest.mark.parametrize("shards", [1, 3])
def test_headers_index_and_files_beside_the_weights_are_the_base_s_own_bytes(shards: int, tmp_path: Path) -> None:
    base = files_of(write_base(tmp_path / "base", shards=shards))
    make_adapter().write(tmp_path / "adapter")
    out = files_of(run(tmp_path))
    weights = {name for name in base if name.endswith(".safetensors")}
    index = {"model.safetensors.index.json"} & base.keys()
    assert out.keys() == weights | index | BESIDE.keys() | {"config.json", "README.md", "lora-merge.json"}
    assert {name: out[name] for name in (*BESIDE, "config.json", *index)} == {
        name: base[name] for name in (*BESIDE, "config.json", *index)
    }
    for name in weights:
        start = parse_header(base[name], len(base[name])).data_start
        assert (out[name][:start], len(out[name])) == (base[name][:start], len(base[name]))


def test_the_number_of_threads_changes_no_byte(tmp_path: Path) -> None:
    write_base(tmp_path / "base", base=BaseShape(hidden=512, inner=1100, vocabulary=300), dtype="BF16", shards=2)
    make_adapter(base=BaseShape(hidden=512, inner=1100, vocabulary=300), targets=TARGETS).write(tmp_path / "adapter")
    first = files_of(run(tmp_path, threads=1))
    (tmp_path / "out").rename(tmp_path / "first")
    assert files_of(run(tmp_path, threads=5)) == first


def test_another_dtype_holds_for_every_weight_and_all_that_names_it(tmp_path: Path) -> None:
    steps = {"model.steps": ("I64", (2,), bytes(16))}
    base = write_base(tmp_path / "base", shards=3, tensors=steps)
    make_adapter(targets=TARGETS).write(tmp_path / "adapter")
    out = run(tmp_path, dtype="bfloat16", verify=True)
    before, after = read_tensors(base), read_tensors(out)
    assert {name: data[1] for name, data in after.items()} == {name: data[1] for name, data in before.items()}
    assert {data[0] for name, data in after.items() if name not in steps} == {"BF16"}
    assert after["model.steps"] == before["model.steps"]
    assert json.loads((out / "config.json").read_text())["dtype"] == "bfloat16"
    index = json.loads((out / "model.safetensors.index.json").read_text())
    assert index["metadata"]["total_size"] == sum(len(data[2]) for data in after.values())


def test_embedding_and_head_are_merged_where_they_are_two_weights(tmp_path: Path) -> None:
    base = write_base(tmp_path / "base", dtype="BF16")
    make_adapter(targets=ENDS).write(tmp_path / "adapter")
    before, after = read_tensors(base), read_tensors(run(tmp_path, verify=True))
    assert {name for name in after if after[name] != before[name]} == {"model.embed_tokens.weight", "lm_head.weight"}


def test_manifest_and_card_tell_where_the_model_comes_from(tmp_path: Path) -> None:
    write_base(tmp_path / "base", shards=2)
    adapter = make_adapter()
    adapter.write(tmp_path / "adapter")
    out = run(tmp_path)
    told = json.loads((out / "lora-merge.json").read_text())
    assert told["adapter"]["digest"] == adapter.digest
    assert (told["base"]["licence"], told["base"]["gated"], told["tensorsMerged"]) == ("apache-2.0", None, 4)
    shards = {path.name: path for path in (tmp_path / "base").glob("*.safetensors")}
    assert told["base"]["files"] == {
        name: {
            "size": path.stat().st_size,
            "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
            "sha256From": "computed",
        }
        for name, path in sorted(shards.items())
    }
    assert told["files"] == {name: {"size": path.stat().st_size} for name, path in sorted(shards.items())}
    card = (out / "README.md").read_text()
    assert 'license: "apache-2.0"' in card
    assert adapter.digest in card
    assert str(tmp_path) not in card + (out / "lora-merge.json").read_text()


def test_a_card_can_not_be_broken_out_of(tmp_path: Path) -> None:
    base = write_base(tmp_path / "base")
    (base / "README.md").write_text('---\nlicense: x"\\n---\\n# evil | cell\n---\n')
    make_adapter(config={"base_model_name_or_path": "a | b\n---\r# c"}).write(tmp_path / "adapter")
    card = (run(tmp_path) / "README.md").read_text()
    assert card.count("\n---\n") == 1
    assert "a \\| b --- # c" in card
    assert "\r" not in card


@pytest.mark.timeout(60)
def test_a_card_s_line_of_spaces_takes_no_time(tmp_path: Path) -> None:
    write_base(tmp_path / "base")
    make_adapter().write(tmp_path / "adapter")
    (tmp_path / "adapter" / "README.md").write_text(f"---\nlicense: a{' ' * 300_000}b\n---\n")
    assert run(tmp_path).exists()


def test_progress_counts_every_byte(tmp_path: Path) -> None:
    write_base(tmp_path / "base", shards=2)
    make_adapter().write(tmp_path / "adapter")
    heard: list[tuple[str, int, int]] = []
    request = MergeRequest(
        base=str(tmp_path / "base"), adapter=str(tmp_path / "adapter"), out=tmp_path / "out", verify=True
    )
    merge(request, progress=lambda stage, count, total: heard.append((stage, count, total)))
    sizes = {path.name: path.stat().st_size for path in (tmp_path / "out").glob("*.safetensors")}
    assert {total for stage, _, total in heard if stage == "merging"} == {sum(sizes.values())}
    assert sum(count for stage, count, _ in heard if stage == "merging") == sum(sizes.values())


def test_an_empty_tensor_and_one_of_a_single_value_are_carried_over(tmp_path: Path) -> None:
    odd = {"model.empty": ("F32", (0, 4), b""), "model.one": tensor(np.array(3.5, np.float32))}
    base = write_base(tmp_path / "base", tensors=odd)
    make_adapter().write(tmp_path / "adapter")
    before, after = read_tensors(base), read_tensors(run(tmp_path))
    assert {name: after[name] for name in odd} == {name: before[name] for name in odd}


def test_where_the_file_system_shares_blocks_only_what_changes_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_base(tmp_path / "base", dtype="BF16", shards=2)
    make_adapter(targets=TARGETS).write(tmp_path / "adapter")
    expected = files_of(run(tmp_path))
    (tmp_path / "out").rename(tmp_path / "first")

    def share(source: int, target: int) -> bool:
        os.pwrite(target, os.pread(source, os.fstat(source).st_size, 0), 0)
        return True

    monkeypatch.setattr("lora_merger.transfer.reflink", share)
    monkeypatch.setattr("lora_merger.transfer.copy_range", lambda *_: pytest.fail("nothing is left to copy"))
    assert files_of(run(tmp_path)) == expected


def test_where_the_kernel_can_not_copy_the_bytes_are_read_and_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuses(*_: object) -> int:
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr("os.copy_file_range", refuses)
    data = bytes(range(256)) * 9000
    (tmp_path / "a").write_bytes(data)
    heard: list[int] = []
    with (tmp_path / "a").open("rb") as source, (tmp_path / "b").open("wb") as target:
        wanted = Range(start=100, into=3, count=2_000_000)
        copy_range(source.fileno(), target.fileno(), wanted, advance=heard.append)
    assert (tmp_path / "b").read_bytes() == bytes(3) + data[100:2_000_100]
    assert sum(heard) == 2_000_000


def test_copies_of_embedding_and_head_that_peft_saved_along_are_left_out(tmp_path: Path) -> None:
    base = write_base(tmp_path / "base", dtype="BF16", shards=2)
    before = read_tensors(base)
    names = ("model.embed_tokens", "lm_head")
    copies = {f"base_model.model.{name}.base_layer.weight": before[f"{name}.weight"] for name in names}
    make_adapter(targets=ENDS).write(tmp_path / "adapter")
    plain = read_tensors(run(tmp_path))
    (tmp_path / "out").rename(tmp_path / "plain")
    make_adapter(targets=ENDS, tensors=copies).write(tmp_path / "adapter")
    assert read_tensors(run(tmp_path, verify=True)) == plain
