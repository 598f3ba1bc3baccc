"""Between training and publishing lies a state that another attempt finds: of the same recipe, and still whole."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lora_operator.adapter import open_directory
from lora_operator.protocol.training import Artifact, Reason, Result
from lora_trainer import saved
from lora_trainer.result import Refusal
from lora_trainer.saved import Contents, Record
from lora_trainer.spec import TrainSpec
from support import adapters

SPEC: dict[str, Any] = {
    "baseModel": {"name": "acme/tiny"},
    "dataset": {"source": {"hub": {"repo": "acme/talk"}}, "format": "Messages"},
    "evaluation": {"fraction": "0.1", "gate": {"threshold": "2"}},
    "output": {"hub": {"repo": "acme/adapter"}},
}


CONTENTS = Contents(base="b" * 40, dataset="d" * 40)


def mark(*, gate: bool = False, world_size: int = 1, contents: Contents = CONTENTS, **fields: Any) -> str:
    return saved.fingerprint(TrainSpec.model_validate(SPEC | fields), contents, world_size=world_size, gate=gate)


def kept(output: Path) -> Record:
    """Put an adapter and its record there."""
    folder = output / saved.ADAPTER
    folder.mkdir()
    adapters.make_adapter().write(folder)
    digest = open_directory(folder).digest
    assert digest is not None
    artifact = Artifact(repo="acme/adapter", commit="", digest=digest, size_bytes=1)
    record = Record(fingerprint=mark(gate=True), result=Result(reason=Reason.TRAINED, steps=20, artifact=artifact))
    saved.keep(output, record)
    return record


@pytest.mark.parametrize(
    "fields",
    [
        {"lora": {"r": 4}},
        {"training": {"seed": 1}},
        {"baseModel": {"name": "acme/tiny", "dtype": "BFloat16"}},
        {"evaluation": {"fraction": "0.2"}},
        {"world_size": 2},
        {"contents": replace(CONTENTS, base="e" * 40)},
        {"contents": replace(CONTENTS, dataset="e" * 40)},
        {"contents": replace(CONTENTS, start="sha256:e")},
    ],
    ids=str,
)
def test_another_recipe_has_another_fingerprint(fields: dict[str, Any]) -> None:
    assert mark(**fields) != mark()


@pytest.mark.parametrize(
    "fields",
    [
        {"output": {"hub": {"repo": "acme/other"}}},
        {"resources": {"limits": {"memory": "4Gi"}}},
        {"backoffLimit": 9},
        {"checkpoint": {"intervalSeconds": 5}},
        {"engine": {"maxLoraRank": 64}},
    ],
    ids=str,
)
def test_where_it_runs_and_goes_is_not_the_recipe(fields: dict[str, Any]) -> None:
    assert mark(**fields) == mark()


def test_a_gate_is_no_part_of_what_is_trained_but_of_what_is_judged() -> None:
    other = {"evaluation": {"fraction": "0.1", "gate": {"threshold": "3"}}}
    assert mark(**other) == mark()
    assert mark(gate=True, **other) != mark(gate=True)


def test_what_was_kept_is_found(tmp_path: Path) -> None:
    record = kept(tmp_path)
    assert saved.find(tmp_path) == record
    assert saved.find(tmp_path, fingerprint=record.fingerprint) == record
    assert saved.needed(tmp_path) == record


def test_another_recipe_s_adapter_is_not_found(tmp_path: Path) -> None:
    kept(tmp_path)
    assert saved.find(tmp_path, fingerprint="0" * 16) is None


@pytest.mark.parametrize("damage", ["cut", "gone", "record", "forgotten"])
def test_what_is_not_whole_is_not_found(tmp_path: Path, damage: str) -> None:
    kept(tmp_path)
    weights = tmp_path / saved.ADAPTER / "adapter_model.safetensors"
    match damage:
        case "cut":
            weights.write_bytes(weights.read_bytes()[:-1] + b"x")
        case "gone":
            weights.unlink()
        case "record":
            (tmp_path / saved.RECORD).write_text(json.dumps({"version": 2}))
        case _:
            saved.forget(tmp_path)
    assert saved.find(tmp_path) is None


def test_publishing_alone_needs_something_to_publish(tmp_path: Path) -> None:
    with pytest.raises(Refusal) as refused:
        saved.needed(tmp_path)
    assert refused.value.reason is Reason.CONFIG_INVALID
    assert "holds no trained adapter" in str(refused.value)


@pytest.mark.parametrize("output", ["a file", "a file/below", "/proc/x"])
def test_an_output_that_can_not_be_written_to_is_refused(output: str, tmp_path: Path) -> None:
    (tmp_path / "a file").touch()
    with pytest.raises(Refusal, match=r"^--output: .* can't be written to: ") as refused:
        saved.check_output(tmp_path / output)
    assert refused.value.reason is Reason.CONFIG_INVALID


def test_an_output_that_is_still_to_be_made_is_fine_and_not_made(tmp_path: Path) -> None:
    saved.check_output(tmp_path / "new" / "out")
    assert list(tmp_path.iterdir()) == []
