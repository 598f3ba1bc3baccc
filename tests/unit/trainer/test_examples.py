"""Every spec in examples/trainer is one that lora-train takes, with the data that lies beside it."""

from __future__ import annotations

from pathlib import Path

import pytest

from lora_trainer import files, rows, servable, shaping, spec

EXAMPLES = Path(__file__).parents[3] / "examples/trainer"
SPECS = sorted(EXAMPLES.glob("*.yaml"))


@pytest.mark.parametrize("path", SPECS, ids=lambda path: path.stem)
def test_an_example_is_a_spec_whose_adapter_could_be_served(path: Path) -> None:
    wanted = spec.read(path)
    servable.check_config(wanted)
    assert wanted.dataset.source.path is not None
    assert wanted.output.hub is None
    template = wanted.dataset.template
    rename = shaping.named(wanted.dataset.column_map)
    found = [rename(row) for row in files.read(Path(wanted.dataset.source.path), field="dataset.source.path")]
    columns = shaping.columns_of(template) if template is not None else ()
    assert rows.check(found, data_format=wanted.dataset.format, columns=columns) >= 3


@pytest.mark.parametrize("path", SPECS, ids=lambda path: path.stem)
def test_an_example_is_in_the_table(path: Path) -> None:
    assert f"[{path.name}]({path.name})" in (EXAMPLES / "README.md").read_text()


def test_there_are_examples() -> None:
    assert len(SPECS) >= 8


def test_bases_hold_no_weights() -> None:
    assert sum(path.stat().st_size for path in (EXAMPLES / "bases").rglob("*") if path.is_file()) < 200_000
