"""From a row as the data set has it to the columns that trl learns from. Pure.

Alpaca and Dolly rows become a prompt and a completion in the words that their authors trained with; with Template the
words are the spec's.
"""

from __future__ import annotations

import string
from collections.abc import Callable, Collection, Mapping
from typing import Final

from lora_operator.api.dataset import Dataset, DatasetFormat, RowTemplate
from lora_operator.protocol.training import Reason
from lora_trainer.result import Refusal
from lora_trainer.rows import COLUMNS, OPTIONAL_COLUMNS, Row

ALPACA: Final = RowTemplate(
    prompt="Below is an instruction that describes a task. Write a response that appropriately completes the request."
    "\n\n### Instruction:\n{instruction}\n\n### Response:\n",
    completion="{output}",
)
ALPACA_WITH_INPUT: Final = RowTemplate(
    prompt="Below is an instruction that describes a task, paired with an input that provides further context. "
    "Write a response that appropriately completes the request."
    "\n\n### Instruction:\n{instruction}\n\n### Input:\n{input}\n\n### Response:\n",
    completion="{output}",
)
DOLLY: Final = RowTemplate(prompt="### Instruction:\n{instruction}\n\n### Response:\n", completion="{response}")
DOLLY_WITH_CONTEXT: Final = RowTemplate(
    prompt="### Instruction:\n{instruction}\n\n### Context:\n{context}\n\n### Response:\n", completion="{response}"
)


def named(column_map: Mapping[str, str] | None) -> Callable[[Row], Row]:
    """Return what gives a row the format's own column names."""
    if not column_map:
        return lambda row: row
    theirs = {name: column for column, name in column_map.items()}
    return lambda row: {
        theirs.get(name, name): value for name, value in row.items() if name in theirs or name not in column_map
    }


def check_named(column_map: Mapping[str, str] | None, have: Collection[str]) -> None:
    """Refuse a columnMap that names a column which no row has, or one twice: before its columns have other names."""
    taken: dict[str, str] = {}
    for name, column in (column_map or {}).items():
        field = f"dataset.columnMap.{name}"
        if column not in have:
            message = f"{field}: the data set has no column {column!r}, it has {', '.join(sorted(have))}"
            raise Refusal(Reason.CONFIG_INVALID, message)
        if column in taken:
            raise Refusal(Reason.CONFIG_INVALID, f"{field}: {column!r} is dataset.columnMap.{taken[column]} already")
        taken[column] = name


def shaper(dataset: Dataset, have: Collection[str]) -> Callable[[Row], dict[str, object]]:
    """Return what makes trl's columns of a checked row; `have` are the columns that rows of this data set have."""
    match dataset.format:
        case DatasetFormat.ALPACA:
            return lambda row: _filled(ALPACA_WITH_INPUT if _said(row, "input") else ALPACA, row)
        case DatasetFormat.DOLLY:
            return lambda row: _filled(DOLLY_WITH_CONTEXT if _said(row, "context") else DOLLY, row)
        case DatasetFormat.TEMPLATE:
            template = dataset.template or RowTemplate()
            return lambda row: _filled(template, row)
        case _:
            optional = (column for column in OPTIONAL_COLUMNS[dataset.format] if column in have)
            wanted = (*COLUMNS[dataset.format], *optional)
            return lambda row: {column: row.get(column) for column in wanted}


def columns_of(template: RowTemplate) -> tuple[str, ...]:
    """Return the columns that a template stands on, each once."""
    texts = (template.prompt, template.completion, template.text)
    named = (part[1] for text in texts if text is not None for part in string.Formatter().parse(text))
    return tuple(dict.fromkeys(column for column in named if column))


def _filled(template: RowTemplate, row: Row) -> dict[str, object]:
    parts = {"prompt": template.prompt, "completion": template.completion, "text": template.text}
    return {name: _fill(text, row) for name, text in parts.items() if text is not None}


def _fill(text: str, row: Row) -> str:
    """Put values in. Not by str.format, which would follow attributes of what a row holds."""
    said = ""
    for words, column, _, _ in string.Formatter().parse(text):
        said += words + (str(row[column]) if column else "")
    return said


def _said(row: Row, column: str) -> bool:
    value = row.get(column)
    return isinstance(value, str) and bool(value.strip())
