"""What is learnt of a data set: nothing, or all where only a part was to be, is refused before any training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from lora_operator.protocol.training import Reason
from lora_trainer import tokens
from lora_trainer.base import BaseModel
from lora_trainer.data import Data
from lora_trainer.positions import Positions
from lora_trainer.result import Refusal
from lora_trainer.spec import TrainSpec


class Characters:
    """A tokenizer by characters, without a chat template."""

    eos_token = "$"

    def __call__(self, *, text: str) -> dict[str, list[int]]:
        return {"input_ids": [ord(character) for character in text]}


def wanted(**training: Any) -> TrainSpec:
    return TrainSpec.model_validate(
        {
            "baseModel": {"name": "acme/tiny"},
            "dataset": {"source": {"path": "rows.jsonl"}, "format": "PromptCompletion"},
            "training": training,
        }
    )


def check(rows: list[dict[str, str]], **training: Any) -> tokens.Tokens:
    data = Data(dataset=rows, revision="", rows=len(rows), name="rows.jsonl", on_hub=False)
    return tokens.check(wanted(**training), data, Characters())


def test_the_share_that_is_learnt_is_that_of_the_completions() -> None:
    found = check([{"prompt": "abcd", "completion": "ef"}, {"prompt": "abc", "completion": "defg"}])
    assert (found.total, found.trained, found.longest) == (7 + 8, 3 + 5, 8)  # each with its end


def test_all_tokens_where_only_the_completions_were_to_be_learnt_are_refused() -> None:
    with pytest.raises(Refusal) as refused:
        check([{"prompt": "", "completion": "ef"}])
    assert refused.value.reason is Reason.DATASET_INVALID
    assert str(refused.value).startswith("training.completionOnlyLoss: only a part of the tokens was to be learnt")


def test_all_tokens_are_learnt_where_that_was_asked_for() -> None:
    assert check([{"prompt": "", "completion": "ef"}], completionOnlyLoss=False).share == 1


def test_rows_that_are_cut_before_their_completions_are_refused_by_the_length() -> None:
    with pytest.raises(Refusal) as refused:
        check([{"prompt": "abcd", "completion": "ef"}], maxLength=4)
    assert refused.value.reason is Reason.DATASET_INVALID
    assert "nothing would be learnt, for every row is cut at training.maxLength 4" in str(refused.value)


BASE = BaseModel(name="acme/tiny", revision="1", folder=Path("nowhere"))
SHORT, LONG = {"prompt": "a", "completion": "b"}, {"prompt": "a" * 50, "completion": "b" * 50}


def test_every_row_is_counted_where_one_could_go_beyond_the_positions_learnt(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokens, "tokenizer", lambda _base: Characters())
    learnt, many = Positions(limit=64, learnt=True), [SHORT] * (2 * tokens.SAMPLE)
    said = tokens.within(wanted(maxLength=128), learnt, [many, None], base=BASE)
    assert "the longest row has 3 tokens" in said
    for parts in ([[*many[:-1], LONG], None], [many, [LONG]]):  # the last row is none of the sample
        with pytest.raises(Refusal, match="and a row has 101 tokens; lower it to 64"):
            tokens.within(wanted(maxLength=128), learnt, parts, base=BASE)


def test_no_row_is_counted_again_where_none_could(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokens, "tokenizer", None)
    assert tokens.within(wanted(maxLength=64), Positions(limit=64, learnt=True), [[LONG]], base=BASE) == ""
    assert "was made for" in tokens.within(wanted(maxLength=65), Positions(limit=64, learnt=False), [[LONG]], base=BASE)
