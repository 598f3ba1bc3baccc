"""What lies under a path is part of what is trained: other content under the same path is another recipe."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lora_trainer import base, checkpoints, start
from lora_trainer.checkpoints import Seal
from lora_trainer.hub import Patience
from lora_trainer.result import Refusal
from lora_trainer.spec import TrainSpec
from support import adapters
from support.checkpoints import write_base


def spec(**fields: Any) -> TrainSpec:
    return TrainSpec.model_validate(
        {"dataset": {"source": {"path": "rows.jsonl"}, "format": "Text"}, "baseModel": {"name": "acme/tiny"}} | fields
    )


def revision(folder: Path) -> str:
    return base.resolve(spec(baseModel={"name": "acme/tiny", "path": str(folder)}), token=None, patience=Patience())


def edited(name: str) -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        content = (folder / name).read_bytes()
        (folder / name).write_bytes(content[:-4] + b"    ")

    return edit


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "tokenizer.json", "chat_template.jinja"])
def test_a_base_that_was_changed_has_another_revision(name: str, tmp_path: Path) -> None:
    folder = write_base(tmp_path / "base")
    before = revision(folder)
    assert revision(folder) == before
    edited(name)(folder)
    assert revision(folder) != before


def test_what_is_not_read_of_a_base_does_not_count(tmp_path: Path) -> None:
    folder = write_base(tmp_path / "base")
    before = revision(folder)
    (folder / "README.md").write_text("another")
    (folder / "consolidated.safetensors").write_bytes(b"a copy")
    (folder / "config.json").touch()
    assert revision(folder) == before


def test_a_folder_without_weights_is_told_by_its_field(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    wanted = spec(baseModel={"name": "acme/tiny", "path": str(tmp_path)})
    with pytest.raises(Refusal, match=f"baseModel.path: {tmp_path} has no safetensors weights"):
        base.fetch(wanted, revision="r", token=None, patience=Patience())


def test_an_adapter_to_go_on_from_counts_by_its_content(tmp_path: Path) -> None:
    assert start.revision(None) is None
    adapters.make_adapter().write(tmp_path)
    before = start.revision(tmp_path)
    edited("adapter_model.safetensors")(tmp_path)
    assert start.revision(tmp_path) != before


def test_checkpoints_of_another_recipe_are_noticed(tmp_path: Path) -> None:
    mine, other = tmp_path / "mine", tmp_path / "other"
    assert not checkpoints.of_others(mine)
    (other / "checkpoint-3").mkdir(parents=True)
    checkpoints.seal(other / "checkpoint-3", Seal(step=3, max_steps=9))
    assert checkpoints.of_others(mine)
    assert not checkpoints.of_others(other)
