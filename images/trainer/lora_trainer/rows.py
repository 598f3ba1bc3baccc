"""What a row of each data set format looks like, and which row of a data set does not.

Pure: rows come in as mappings, wherever they were read; what is wrong goes out as one sentence with row and column.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final

from lora_operator.api.dataset import DatasetFormat
from lora_operator.protocol.training import Reason
from lora_trainer.result import Refusal

Row = Mapping[str, object]

COLUMNS: Final[Mapping[DatasetFormat, tuple[str, ...]]] = {
    DatasetFormat.MESSAGES: ("messages",),
    DatasetFormat.PROMPT_COMPLETION: ("prompt", "completion"),
    DatasetFormat.TEXT: ("text",),
    DatasetFormat.PREFERENCE: ("chosen", "rejected"),
    DatasetFormat.ALPACA: ("instruction", "output"),
    DatasetFormat.DOLLY: ("instruction", "response"),
    DatasetFormat.TEMPLATE: (),
}
OPTIONAL_COLUMNS: Final[Mapping[DatasetFormat, tuple[str, ...]]] = {
    DatasetFormat.MESSAGES: ("tools",),
    DatasetFormat.PROMPT_COMPLETION: ("tools",),
    DatasetFormat.TEXT: (),
    DatasetFormat.PREFERENCE: ("prompt", "tools"),
    DatasetFormat.ALPACA: ("input",),
    DatasetFormat.DOLLY: ("context",),
    DatasetFormat.TEMPLATE: (),
}
_EITHER: Final = (DatasetFormat.PROMPT_COMPLETION, DatasetFormat.PREFERENCE)
"""Rows are strings or messages, and all of them alike."""
_HALF: Final = re.compile("[\ud800-\udfff]")
"""Half of a character that JSON writes as two: no text, and nothing that a tokenizer takes."""
ROLES: Final = ("system", "developer", "user", "assistant", "tool")


def check(rows: Iterable[Row], *, data_format: DatasetFormat, columns: Sequence[str] = ()) -> int:
    """Return how many rows there are; refuse an empty data set and the first row that is not of the format.

    `columns` are those that format Template stands on.
    """
    number = 0
    needed = columns or COLUMNS[data_format]
    read = (*needed, *OPTIONAL_COLUMNS[data_format])
    fault_of = _FAULTS[data_format]
    spoken: bool | None = None
    for number, row in enumerate(rows, start=1):
        fault = _missing(row, needed) or _not_scalar(row, columns) or _broken_text(row, read)
        fault = fault or fault_of(row) or _tools_fault(row, data_format)
        spoken = conversational(row) if spoken is None else spoken
        if not fault and conversational(row) != spoken and data_format in _EITHER:
            fault = "is of messages, row 1 of strings" if not spoken else "is of strings, row 1 of messages"
        if fault:
            raise Refusal(
                Reason.DATASET_INVALID,
                f"data set row {number}: {fault}; dataset.format is {data_format.value}, {_expected(data_format)}",
            )
    if number == 0:
        raise Refusal(Reason.DATASET_INVALID, "data set is empty: dataset.source has no row in it")
    return number


def check_columns(have: Iterable[str], *, data_format: DatasetFormat, columns: Sequence[str] = ()) -> None:
    """Refuse a data set that lacks a column, before any row is read."""
    found = sorted(have)
    for column in columns or COLUMNS[data_format]:
        if column not in found:
            raise Refusal(
                Reason.DATASET_INVALID,
                f"data set has no column {column!r}, its columns are {', '.join(found) or 'none'}; "
                f"dataset.format is {data_format.value}, {_expected(data_format)}",
            )


def conversational(row: Row) -> bool:
    """Tell whether a row, as trl gets it, needs the base model's chat template."""
    return any(isinstance(row.get(column), list) for column in ("messages", "prompt", "chosen"))


def conversations(row: Row) -> list[list[object]]:
    """Return all messages of a conversational row, in order: once, or for each of two answers."""
    if "messages" in row:
        return [_joined(row, "messages")]
    answers = ("chosen", "rejected") if "chosen" in row else ("completion",)
    return [_joined(row, "prompt", answer) for answer in answers]


def _joined(row: Row, *columns: str) -> list[object]:
    parts = (row.get(column) for column in columns)
    return [message for part in parts if isinstance(part, list) for message in part]


def spoken(messages: Sequence[object]) -> list[object] | None:
    """Return messages with an empty content where they have none, as calls of tools may; None where all have one."""
    made = [
        {**message, "content": ""} if isinstance(message, Mapping) and message.get("content") is None else message
        for message in messages
    ]
    return made if made != list(messages) else None


def own_fields(row: Row) -> dict[str, object]:
    """Return a row whose messages and tools have their own fields alone: arrow adds those of all others, empty."""
    return {column: _without_empty(value) for column, value in row.items()}


def _without_empty(value: object) -> object:
    if isinstance(value, Mapping):
        return {name: _without_empty(inner) for name, inner in value.items() if inner is not None}
    return [_without_empty(inner) for inner in value] if isinstance(value, list) else value


def tools(row: Row) -> list[object] | None:
    """Return a row's tools: a list, or its JSON in a string, as trl takes them."""
    found = row.get("tools")
    value = json.loads(found) if isinstance(found, str) else found
    if value is not None and not isinstance(value, list):
        raise ValueError("no list")
    return value


def _tools_fault(row: Row, data_format: DatasetFormat) -> str | None:
    if "tools" not in OPTIONAL_COLUMNS[data_format] or not conversational(row):
        return None
    try:
        given = tools(row) or []
    except ValueError:
        kind = "a string that is no JSON of a list" if isinstance(row["tools"], str) else _kind(row["tools"])
        return f"column 'tools' is {kind}, not a list of tools"
    for index, tool in enumerate(given):
        if not isinstance(tool, Mapping):
            return f"column 'tools[{index}]' is {_kind(tool)}, not an object"
    return None


def _broken_text(row: Row, columns: Sequence[str]) -> str | None:
    for column in columns:
        if _broken(row.get(column)):
            return f"column {column!r} has half a character (a lone surrogate, such as \\ud83d), which is no text"
    return None


def _broken(value: object) -> bool:
    if isinstance(value, str):
        return not value.isascii() and _HALF.search(value) is not None
    if isinstance(value, Mapping):
        return any(_broken(name) or _broken(inner) for name, inner in value.items())
    return isinstance(value, list) and any(_broken(inner) for inner in value)


def _missing(row: Row, needed: Sequence[str]) -> str | None:
    for column in needed:
        if row.get(column) is None:
            others = ", ".join(sorted(key for key, value in row.items() if value is not None)) or "none"
            return f"no column {column!r}, its columns are {others}"
    return None


def _not_scalar(row: Row, columns: Sequence[str]) -> str | None:
    for column in columns:
        if not isinstance(row[column], str | int | float):
            return f"column {column!r} is {_kind(row[column])}, not a string or a number"
    return None


def _expected(data_format: DatasetFormat) -> str:
    return {
        DatasetFormat.MESSAGES: 'which wants {"messages": [{"role": "user", "content": "..."}, ...]}',
        DatasetFormat.PROMPT_COMPLETION: 'which wants {"prompt": "...", "completion": "..."}',
        DatasetFormat.TEXT: 'which wants {"text": "..."}',
        DatasetFormat.PREFERENCE: 'which wants {"prompt": "...", "chosen": "...", "rejected": "..."}',
        DatasetFormat.ALPACA: 'which wants {"instruction": "...", "input": "...", "output": "..."}',
        DatasetFormat.DOLLY: 'which wants {"instruction": "...", "context": "...", "response": "..."}',
        DatasetFormat.TEMPLATE: "which wants every column that dataset.template names",
    }[data_format]


def _prompt_completion_fault(row: Row) -> str | None:
    prompt, completion = row["prompt"], row["completion"]
    if isinstance(prompt, list) or isinstance(completion, list):
        return _conversation_fault("prompt", prompt) or _conversation_fault("completion", completion)
    return _strings_fault("prompt", "completion")(row)


def _preference_fault(row: Row) -> str | None:
    prompt, chosen, rejected = row.get("prompt"), row["chosen"], row["rejected"]
    if chosen == rejected:
        return "columns 'chosen' and 'rejected' are the same: nothing is preferred"
    if isinstance(chosen, list) or isinstance(rejected, list):
        given = None if prompt is None else _conversation_fault("prompt", prompt)
        return given or _conversation_fault("chosen", chosen) or _conversation_fault("rejected", rejected)
    if prompt is None:
        return "no column 'prompt': answers that are strings need it"
    return _strings_fault("prompt", "chosen", "rejected")(row)


def _strings_fault(*columns: str) -> Callable[[Row], str | None]:
    return lambda row: next((fault for column in columns if (fault := _string_fault(column, row[column]))), None)


def _optional_string(column: str, fault_of: Callable[[Row], str | None]) -> Callable[[Row], str | None]:
    def fault(row: Row) -> str | None:
        value = row.get(column)
        if value is not None and not isinstance(value, str):
            return f"column {column!r} is {_kind(value)}, not a string"
        return fault_of(row)

    return fault


def _messages_fault(row: Row) -> str | None:
    messages = row["messages"]
    fault = _conversation_fault("messages", messages)
    if fault:
        return fault
    roles = [message["role"] for message in messages] if isinstance(messages, list) else []
    return None if "assistant" in roles else "column 'messages' has no message of role 'assistant' to learn from"


def _conversation_fault(column: str, value: object) -> str | None:
    if not isinstance(value, list):
        return f"column {column!r} is {_kind(value)}, not a list of messages"
    if not value:
        return f"column {column!r} is an empty list"
    for index, message in enumerate(value):
        fault = _message_fault(message)
        if fault:
            return f"column '{column}[{index}]' {fault}"
    return None


def _message_fault(message: object) -> str | None:
    if not isinstance(message, Mapping):
        return f"is {_kind(message)}, not an object with role and content"
    role, content = message.get("role"), message.get("content")
    if role not in ROLES:
        shown = repr(role) if isinstance(role, str) else _kind(role)
        return f"has role {shown}, which is none of {', '.join(ROLES)}"
    if content is None and message.get("tool_calls"):
        return None
    if not isinstance(content, str):
        return f"has content that is {_kind(content)}, not a string"
    return None


def _string_fault(column: str, value: object) -> str | None:
    if not isinstance(value, str):
        return f"column {column!r} is {_kind(value)}, not a string"
    return None if value.strip() else f"column {column!r} is an empty string"


def _kind(value: object) -> str:
    names = {type(None): "missing", bool: "a boolean", int: "a number", float: "a number", str: "a string"}
    fallback = "an object" if isinstance(value, Mapping) else "a list" if isinstance(value, list) else "of another type"
    return names.get(type(value), fallback)


_FAULTS: Final[Mapping[DatasetFormat, Callable[[Row], str | None]]] = {
    DatasetFormat.MESSAGES: _messages_fault,
    DatasetFormat.PROMPT_COMPLETION: _prompt_completion_fault,
    DatasetFormat.TEXT: _strings_fault("text"),
    DatasetFormat.PREFERENCE: _preference_fault,
    DatasetFormat.ALPACA: _optional_string("input", _strings_fault("instruction", "output")),
    DatasetFormat.DOLLY: _optional_string("context", _strings_fault("instruction", "response")),
    DatasetFormat.TEMPLATE: lambda _: None,
}
