"""Every spec in examples/trainer is one that lora-train takes, with the data that lies beside it."""

from __future__ import annotations

from pathlib import Path

import pytest

from lora_trainer import files, rows, servable, spec

EXAMPLES = Path(__file__).parents[3] / "examples/trainer"


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.yaml")), ids=lambda path: path.stem)
def test_an_example_is_a_spec_whose_adapter_could_be_served(path: Path) -> None:
    wanted = spec.read(path)
    servable.check_config(wanted)
    if ref := wanted.dataset.source.config_map_ref:
        found = files.read(EXAMPLES / "data" / ref.key, field="dataset.source.configMapRef.key")
        assert rows.check(found, data_format=wanted.dataset.format) >= 3


def test_there_are_examples() -> None:
    assert len(list(EXAMPLES.glob("*.yaml"))) >= 3
