"""A checkpoint counts when its seal lies beside it and every file is what the seal says; the newest such is taken."""

from __future__ import annotations

from pathlib import Path

import pytest

from lora_trainer import checkpoints
from lora_trainer.checkpoints import SEAL, Seal


def written(root: Path, step: int, *, sealed: bool = True) -> Path:
    folder = root / f"checkpoint-{step}"
    folder.mkdir(parents=True)
    (folder / "adapter_model.safetensors").write_bytes(b"weights of %d" % step)
    (folder / "trainer_state.json").write_text("{}")
    if sealed:
        checkpoints.seal(folder, Seal(step=step, max_steps=100, probe=1.5))
    return folder


def names(root: Path) -> set[str]:
    return {path.name for path in root.iterdir()}


def newest_step(root: Path) -> int | None:
    found = checkpoints.newest(root)
    return None if found is None else found.seal.step


def test_the_highest_step_counts_and_not_the_name_s_order(tmp_path: Path) -> None:
    for step in (9, 100, 20):
        written(tmp_path, step)
    assert newest_step(tmp_path) == 100


def test_there_may_be_none(tmp_path: Path) -> None:
    assert checkpoints.newest(tmp_path / "nowhere") is None
    written(tmp_path, 5, sealed=False)
    (tmp_path / "notes").mkdir()
    assert checkpoints.newest(tmp_path) is None


def test_one_without_its_seal_is_passed_over(tmp_path: Path) -> None:
    written(tmp_path, 10)
    written(tmp_path, 20, sealed=False)
    assert newest_step(tmp_path) == 10


@pytest.mark.parametrize("damage", ["cut", "gone", "changed", "broken seal"])
def test_one_that_is_not_what_was_sealed_is_passed_over(tmp_path: Path, damage: str) -> None:
    written(tmp_path, 10)
    weights = written(tmp_path, 20) / "adapter_model.safetensors"
    match damage:
        case "cut":
            weights.write_bytes(weights.read_bytes()[:3])
        case "gone":
            weights.unlink()
        case "changed":
            weights.write_bytes(b"weights of 21")
        case _:
            (weights.parent / SEAL).write_text("{")
    assert newest_step(tmp_path) == 10


def test_what_lies_behind_the_step_to_go_on_from_is_removed(tmp_path: Path) -> None:
    for step, sealed in ((10, True), (20, True), (30, False)):
        written(tmp_path, step, sealed=sealed)
    checkpoints.discard_later(tmp_path, 10)
    assert names(tmp_path) == {"checkpoint-10"}


def test_the_newest_are_kept_and_the_best(tmp_path: Path) -> None:
    for step in (10, 20, 30, 40):
        written(tmp_path, step)
    written(tmp_path, 50, sealed=False)
    checkpoints.prune(tmp_path, keep=2, best="/elsewhere/checkpoint-10")
    assert names(tmp_path) == {"checkpoint-10", "checkpoint-30", "checkpoint-40", "checkpoint-50"}


def test_a_seal_is_there_as_a_whole_or_not_at_all(tmp_path: Path) -> None:
    folder = written(tmp_path, 10)
    assert names(folder) == {SEAL, "adapter_model.safetensors", "trainer_state.json"}
    found = checkpoints.newest(tmp_path)
    assert found is not None
    assert set(found.seal.files) == {"adapter_model.safetensors", "trainer_state.json"}
    assert found.seal.probe == 1.5
