"""Rows of other shapes become what trl learns from, in known words; a mapped column is told by the format's name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from lora_operator.api.dataset import Dataset, DatasetFormat, RowTemplate
from lora_operator.protocol.training import Reason
from lora_trainer import rows, shaping
from lora_trainer.result import Refusal

SOURCE = {"configMapRef": {"name": "data", "key": "x.jsonl"}}


def shaped(row: Mapping[str, object], data_format: str, **fields: Any) -> dict[str, object]:
    dataset = Dataset.model_validate({"source": SOURCE, "format": data_format, **fields})
    named = shaping.named(dataset.column_map)(row)
    return shaping.shaper(dataset, set(named))(named)


def test_alpaca_rows_are_said_as_their_authors_said_them() -> None:
    plain = shaped({"instruction": "Add.", "input": " ", "output": "3"}, "Alpaca")
    assert plain == {
        "prompt": "Below is an instruction that describes a task. Write a response that appropriately completes the "
        "request.\n\n### Instruction:\nAdd.\n\n### Response:\n",
        "completion": "3",
    }
    with_input = shaped({"instruction": "Add.", "input": "1, 2", "output": "3"}, "Alpaca")
    assert "### Instruction:\nAdd.\n\n### Input:\n1, 2\n\n### Response:\n" in str(with_input["prompt"])


def test_dolly_rows_have_their_context_where_there_is_one() -> None:
    without = shaped({"instruction": "Who?", "context": "", "response": "He.", "category": "qa"}, "Dolly")
    assert without == {"prompt": "### Instruction:\nWho?\n\n### Response:\n", "completion": "He."}
    context = shaped({"instruction": "Who?", "context": "A man.", "response": "He."}, "Dolly")
    assert context["prompt"] == "### Instruction:\nWho?\n\n### Context:\nA man.\n\n### Response:\n"


def test_a_template_puts_values_in_and_follows_nothing_that_they_hold() -> None:
    template = {"prompt": "{{{n}}} {q}?", "completion": "{a}"}
    found = shaped({"n": 7, "q": "{a.__class__}", "a": "yes"}, "Template", template=template)
    assert found == {"prompt": "{7} {a.__class__}?", "completion": "yes"}


def test_the_columns_of_a_template_are_named_once() -> None:
    assert shaping.columns_of(RowTemplate(prompt="{b} {a} {b}", completion="{c}")) == ("b", "a", "c")


def test_a_mapped_column_has_the_formats_name_and_takes_the_place_of_one_of_that_name() -> None:
    row = {"question": "1+1?", "answer": "2", "prompt": "not this", "id": 5}
    found = shaped(row, "PromptCompletion", columnMap={"prompt": "question", "completion": "answer"})
    assert found == {"prompt": "1+1?", "completion": "2"}


def test_only_the_columns_of_the_format_go_on() -> None:
    assert shaped({"text": "a", "labels": [1]}, "Text") == {"text": "a"}


@pytest.mark.parametrize(
    ("data_format", "row", "fault"),
    [
        ("Preference", {"prompt": "a", "chosen": "b", "rejected": "b"}, "columns 'chosen' and 'rejected' are the same"),
        ("Preference", {"chosen": "b", "rejected": "c"}, "no column 'prompt': answers that are strings need it"),
        ("Preference", {"prompt": "a", "chosen": "b"}, "no column 'rejected', its columns are chosen, prompt"),
        ("Preference", {"prompt": "a", "chosen": "", "rejected": "c"}, "column 'chosen' is an empty string"),
        ("Preference", {"chosen": [], "rejected": "c"}, "column 'chosen' is an empty list"),
        ("Alpaca", {"instruction": "a"}, "no column 'output', its columns are instruction"),
        ("Alpaca", {"instruction": "a", "input": 3, "output": "b"}, "column 'input' is a number, not a string"),
        ("Dolly", {"instruction": "", "response": "b"}, "column 'instruction' is an empty string"),
    ],
)
def test_a_row_of_the_newer_formats_is_refused_by_its_column(
    data_format: str, row: Mapping[str, object], fault: str
) -> None:
    with pytest.raises(Refusal) as refused:
        rows.check([row], data_format=DatasetFormat(data_format))
    assert refused.value.reason is Reason.DATASET_INVALID
    assert str(refused.value).startswith(f"data set row 1: {fault}")


@pytest.mark.parametrize(
    ("row", "fault"),
    [
        ({"q": "a"}, "no column 'a', its columns are q"),
        ({"q": "a", "a": ["b"]}, "column 'a' is a list, not a string or a number"),
    ],
)
def test_a_row_that_a_template_can_not_be_filled_from_is_refused(row: Mapping[str, object], fault: str) -> None:
    with pytest.raises(Refusal) as refused:
        rows.check([row], data_format=DatasetFormat.TEMPLATE, columns=("q", "a"))
    assert str(refused.value).startswith(f"data set row 1: {fault}")


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": "a", "chosen": "b", "rejected": "c"},
        {
            "chosen": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}],
            "rejected": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "c"}],
        },
    ],
)
def test_preferences_are_strings_or_conversations(row: Mapping[str, object]) -> None:
    assert rows.check([row], data_format=DatasetFormat.PREFERENCE) == 1
    assert rows.conversational(row) == isinstance(row["chosen"], list)


@pytest.mark.parametrize(
    ("column_map", "sentence"),
    [
        ({"prompt": "nope", "completion": "a"}, "dataset.columnMap.prompt: the data set has no column 'nope', it has"),
        ({"prompt": "q", "completion": "q"}, "dataset.columnMap.completion: 'q' is dataset.columnMap.prompt already"),
    ],
)
def test_a_column_map_is_held_against_the_columns_that_there_are(column_map: dict[str, str], sentence: str) -> None:
    with pytest.raises(Refusal) as refused:
        shaping.check_named(column_map, ["q", "a"])
    assert str(refused.value).startswith(sentence)
    shaping.check_named({"prompt": "q", "completion": "a"}, ["q", "a"])
