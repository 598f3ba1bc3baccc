"""A length that the base has no positions for is refused; one that it was not made for is a warning."""

from __future__ import annotations

from typing import Any

import pytest

from lora_trainer import positions
from lora_trainer.result import Refusal

LEARNT = ["transformer.wte", "transformer.wpe"]
ROTARY = ["model.embed_tokens"]


@pytest.mark.parametrize(
    ("config", "limit"),
    [
        ({"max_position_embeddings": 512}, 512),
        ({"n_positions": 512}, 512),
        ({"max_position_embeddings": 512, "rope_parameters": {"rope_type": "default"}}, 512),
        ({"max_position_embeddings": 512, "rope_scaling": {"type": "linear", "factor": 4.0}}, 2048),
        (
            {
                "max_position_embeddings": 512,
                "rope_parameters": {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 512},
            },
            2048,
        ),
        ({"max_position_embeddings": 512, "rope_scaling": {"rope_type": "llama3", "factor": 8.0}}, 512),
        ({}, None),
    ],
)
def test_a_config_says_how_many_positions_there_are(config: dict[str, Any], limit: int | None) -> None:
    assert positions.limit(config) == limit


@pytest.mark.parametrize("table", ["transformer.wpe", "model.decoder.embed_positions", "biogpt.embed_positions"])
def test_more_than_the_positions_learnt_is_refused(table: str) -> None:
    with pytest.raises(Refusal) as refused:
        positions.check(513, {"n_positions": 512}, ["transformer.wte", table], name="acme/tiny")
    assert str(refused.value).startswith("training.maxLength: 513 is more than the 512 positions that acme/tiny")


def test_more_than_rotary_positions_is_a_warning() -> None:
    said = positions.check(513, {"max_position_embeddings": 512}, ROTARY, name="acme/tiny")
    assert said == "training.maxLength: 513 is more than the 512 positions that acme/tiny was made for"


def test_what_the_base_has_positions_for_passes() -> None:
    assert positions.check(512, {"n_positions": 512}, LEARNT, name="acme/tiny") == ""
    assert positions.check(10**6, {}, LEARNT, name="acme/tiny") == ""
