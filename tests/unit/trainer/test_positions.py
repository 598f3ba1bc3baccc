"""Rows that the base has no positions for are refused; a length that it was not made for is a warning."""

from __future__ import annotations

from typing import Any

import pytest

from lora_operator.api.training import Training
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


def check(found: positions.Positions, *, length: int = 513, longest: int | None = None, packing: bool = False) -> str:
    training = Training(max_length=length, packing=packing)
    return positions.check(found, training, name="acme/tiny", longest=longest)


@pytest.mark.parametrize("table", ["transformer.wpe", "model.decoder.embed_positions", "biogpt.embed_positions"])
def test_a_row_beyond_the_positions_learnt_is_refused(table: str) -> None:
    found = positions.of({"n_positions": 512}, ["transformer.wte", table])
    with pytest.raises(Refusal) as refused:
        check(found, longest=513)
    assert str(refused.value) == (
        "training.maxLength: 513 is more than the 512 positions that acme/tiny has learnt, and a row has 513 tokens; "
        "lower it to 512, which cuts such rows"
    )


def test_rows_within_the_positions_learnt_pass_with_a_warning() -> None:
    found = positions.of({"n_positions": 512}, LEARNT)
    assert check(found, longest=512).endswith("the longest row has 512 tokens, so that it is trained on as it is")
    assert check(found).endswith("has learnt: a row that is longer than these will be refused")


def test_packing_fills_rows_beyond_the_positions_learnt() -> None:
    with pytest.raises(Refusal, match=r"training.packing fills rows to that length; lower it to 512$"):
        check(positions.of({"n_positions": 512}, LEARNT), longest=3, packing=True)


def test_more_than_rotary_positions_is_a_warning() -> None:
    said = check(positions.of({"max_position_embeddings": 512}, ROTARY), longest=513)
    assert said == "training.maxLength: 513 is more than the 512 positions that acme/tiny was made for"


def test_what_the_base_has_positions_for_passes() -> None:
    assert check(positions.of({"n_positions": 512}, LEARNT), length=512) == ""
    assert check(positions.of({}, LEARNT), length=8192) == ""
