"""What the real trainer leaves when it finds a fault in a data set: the file, and the termination message for it.

`unit` and `e2e` hold these to the trainer; the Job actor of `cluster` replays them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from lora_operator.api.dataset import DatasetFormat
from lora_operator.protocol.training import ExitCode


@dataclass(frozen=True, kw_only=True, slots=True)
class DatasetFault:
    """A ConfigMap's key and value, the format that the spec says it has, and how the trainer ends."""

    key: str
    value: str
    format: DatasetFormat
    termination_message: str
    exit_code: ExitCode = ExitCode.DATASET_INVALID


def _result(message: str) -> str:
    return (
        '{"version":1,"reason":"DatasetInvalid","message":"' + message.replace('"', '\\"') + '",'
        '"baseRevision":"","datasetRevision":"","steps":0,"metrics":{}}'
    )


DATASET_FAULTS: Mapping[str, DatasetFault] = {
    "empty": DatasetFault(
        key="train.jsonl",
        value="\n",
        format=DatasetFormat.TEXT,
        termination_message=_result("data set is empty: dataset.source has no row in it"),
    ),
    "missing column": DatasetFault(
        key="train.jsonl",
        value='{"prompt": "2+2?", "completion": "4"}\n{"prompt": "3+3?", "answer": "6"}\n',
        format=DatasetFormat.PROMPT_COMPLETION,
        termination_message=_result(
            "data set row 2: no column 'completion', its columns are answer, prompt; dataset.format is "
            'PromptCompletion, which wants {"prompt": "...", "completion": "..."}'
        ),
    ),
    "wrong format": DatasetFault(
        key="train.jsonl",
        value='{"messages": "hello"}\n',
        format=DatasetFormat.MESSAGES,
        termination_message=_result(
            "data set row 1: column 'messages' is a string, not a list of messages; dataset.format is Messages, "
            'which wants {"messages": [{"role": "user", "content": "..."}, ...]}'
        ),
    ),
    "broken line": DatasetFault(
        key="train.jsonl",
        value='{"text": "fine"}\n{"text": "not clo\n',
        format=DatasetFormat.TEXT,
        termination_message=_result(
            "data set: line 2 of train.jsonl is not JSON: Unterminated string starting at at column 10"
        ),
    ),
}
