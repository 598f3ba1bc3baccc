"""A data set is refused by row and column, and a good one is counted."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import jinja2
import pytest

from lora_operator.api.dataset import DatasetFormat
from lora_operator.protocol.training import Reason
from lora_trainer import data, rows
from lora_trainer.hub import Patience
from lora_trainer.result import Refusal, failed, termination_message
from lora_trainer.spec import TrainSpec
from support.trainer_results import DATASET_FAULTS, DatasetFault

M, P, T = DatasetFormat.MESSAGES, DatasetFormat.PROMPT_COMPLETION, DatasetFormat.TEXT
USER = {"role": "user", "content": "hi"}
ASSISTANT = {"role": "assistant", "content": "hello"}
CHAT = TrainSpec.model_validate(
    {"baseModel": {"name": "acme/tiny"}, "dataset": {"source": {"path": "chat.jsonl"}, "format": "Messages"}}
)
CALL = {"role": "assistant", "content": None, "tool_calls": [{"type": "function"}]}


@pytest.mark.parametrize(
    ("data_format", "row"),
    [
        (M, {"messages": [USER, ASSISTANT]}),
        (M, {"messages": [USER, CALL, {"role": "tool", "content": "42"}, ASSISTANT], "tools": []}),
        (P, {"prompt": "a", "completion": "b"}),
        (P, {"prompt": [USER], "completion": [ASSISTANT]}),
        (M, {"messages": [USER, ASSISTANT], "tools": '[{"type": "function"}]'}),
        (P, {"prompt": "a", "completion": "b", "tools": "hammer"}),
        (T, {"text": "once upon a time", "other": 7}),
    ],
)
def test_a_row_of_its_format_is_taken(data_format: DatasetFormat, row: Mapping[str, object]) -> None:
    assert rows.check([row, row], data_format=data_format) == 2


@pytest.mark.parametrize(
    ("data_format", "row", "fault"),
    [
        (M, {"messages": []}, "column 'messages' is an empty list"),
        (M, {"messages": [USER]}, "column 'messages' has no message of role 'assistant' to learn from"),
        (M, {"messages": [USER, "x"]}, "column 'messages[1]' is a string, not an object with role and content"),
        (M, {"messages": [{"role": "bot", "content": ""}]}, "column 'messages[0]' has role 'bot', which is none of"),
        (M, {"messages": [{"content": "x"}]}, "column 'messages[0]' has role missing"),
        (M, {"messages": [{"role": "user", "content": 1}]}, "column 'messages[0]' has content that is a number"),
        (M, {"messages": [USER, ASSISTANT], "tools": "get_weather"}, "column 'tools' is a string that is no JSON of a"),
        (M, {"messages": [USER, ASSISTANT], "tools": "{}"}, "column 'tools' is a string that is no JSON of a list"),
        (M, {"messages": [USER, ASSISTANT], "tools": {}}, "column 'tools' is an object, not a list of tools"),
        (M, {"messages": [USER, ASSISTANT], "tools": ["f"]}, "column 'tools[0]' is a string, not an object"),
        (M, {"text": "x"}, "no column 'messages', its columns are text"),
        (P, {"prompt": "a", "completion": " "}, "column 'completion' is an empty string"),
        (P, {"prompt": "a", "completion": 3.5}, "column 'completion' is a number, not a string"),
        (P, {"prompt": [USER], "completion": "b"}, "column 'completion' is a string, not a list of messages"),
        (T, {"text": None}, "no column 'text', its columns are none"),
        (T, {"text": ["a"]}, "column 'text' is a list, not a string"),
        (T, {"text": "a \ud83d"}, "column 'text' has half a character (a lone surrogate, such as "),
        (M, {"messages": [USER, ASSISTANT | {"content": "\udc00"}]}, "column 'messages' has half a character"),
    ],
)
def test_the_first_row_that_is_not_of_the_format_is_named(
    data_format: DatasetFormat, row: Mapping[str, object], fault: str
) -> None:
    good: dict[DatasetFormat, Mapping[str, object]] = {
        M: {"messages": [USER, ASSISTANT]},
        P: {"prompt": "a", "completion": "b"},
        T: {"text": "a"},
    }
    with pytest.raises(Refusal) as refused:
        rows.check([good[data_format], row, row], data_format=data_format)
    assert refused.value.reason is Reason.DATASET_INVALID
    assert str(refused.value).startswith(f"data set row 2: {fault}")


def test_a_column_that_the_whole_data_set_lacks_is_told_before_any_row() -> None:
    with pytest.raises(Refusal, match="no column 'completion', its columns are label, prompt"):
        rows.check_columns(["prompt", "label"], data_format=P)


def test_half_a_character_in_a_column_that_nobody_reads_does_no_harm() -> None:
    assert rows.check([{"text": "whole: \U0001f600", "label": "\ud83d"}], data_format=T) == 1


def test_a_conversation_is_prompt_and_completion_in_order() -> None:
    assert rows.conversations({"prompt": [USER], "completion": [ASSISTANT]}) == [[USER, ASSISTANT]]


def test_a_prompt_with_two_answers_is_two_conversations() -> None:
    row = {"prompt": [USER], "chosen": [ASSISTANT], "rejected": [CALL]}
    assert rows.conversations(row) == [[USER, ASSISTANT], [USER, CALL]]


@dataclass(frozen=True, kw_only=True)
class Speaker:
    """Says messages as a tokenizer with this chat template does."""

    chat_template: str

    def apply_chat_template(self, messages: list[object], *, tools: object, tokenize: bool) -> str:
        assert (tools, tokenize) == (None, False)
        environment = jinja2.Environment()  # noqa: S701 - a chat, and no HTML
        return environment.from_string(self.chat_template).render(messages=messages)


def speaker(said: str) -> Speaker:
    return Speaker(chat_template="{% for m in messages %}" + said + "{% endfor %}")


def chat_of(*messages: object) -> data.Data:
    return data.Data(dataset=[{"messages": list(messages)}], revision="1", rows=1, name="chat", on_hub=False)


WITHOUT = {"role": "assistant", "tool_calls": CALL["tool_calls"]}


@pytest.mark.parametrize("call", [CALL, WITHOUT], ids=["null", "left out"])
def test_a_call_without_content_is_taken_where_the_template_takes_it(call: Mapping[str, object]) -> None:
    taking = speaker("{% if m.content %}{{ m.content }}{% else %}{{ m.tool_calls }}{% endif %}")
    data.check_template(chat_of(USER, call, ASSISTANT | {"content": "None."}), taking, spec=CHAT)


@pytest.mark.parametrize(
    ("call", "said", "fault"),
    [
        (CALL, "{{ m.content }}", "says None where a message has no content"),
        (CALL, "{{ m.content + '!' }}", "refuses it: unsupported operand type"),
        (WITHOUT, "{{ m.content + '!' }}", "refuses it: 'dict object' has no attribute 'content'"),
    ],
)
def test_a_call_without_content_is_refused_where_the_template_has_no_words_for_it(
    call: Mapping[str, object], said: str, fault: str
) -> None:
    with pytest.raises(Refusal) as refused:
        data.check_template(chat_of(USER, call, ASSISTANT), speaker(said), spec=CHAT)
    assert refused.value.reason is Reason.DATASET_INVALID
    assert str(refused.value).startswith(f"data set row 1: the chat template of acme/tiny {fault}")
    assert str(refused.value).endswith('; give messages without content the content ""')


def test_tools_may_be_json_in_a_string_as_trl_has_it() -> None:
    assert rows.tools({"tools": '[{"type": "function"}]'}) == [{"type": "function"}]
    assert rows.tools({"tools": [{"type": "function"}]}) == [{"type": "function"}]
    assert rows.tools({}) is None


def test_a_row_is_freed_of_the_fields_that_other_rows_have() -> None:
    call = {"function": {"name": "f", "arguments": {"city": "Bern", "day": None}}}
    row = {"messages": [{"role": "assistant", "content": None, "tool_calls": [call]}], "tools": None}
    own = {"function": {"name": "f", "arguments": {"city": "Bern"}}}
    assert rows.own_fields(row) == {"messages": [{"role": "assistant", "tool_calls": [own]}], "tools": None}


def test_a_folder_of_the_repository_s_name_is_not_read_in_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "acme/talk").mkdir(parents=True)
    wanted = TrainSpec.model_validate(
        {"baseModel": {"name": "acme/tiny"}, "dataset": {"source": {"hub": {"repo": "acme/talk"}}, "format": "Text"}}
    )
    with pytest.raises(Refusal, match="there is a folder acme/talk in"):
        data.load(wanted, folder=tmp_path, token=None, patience=Patience())


@pytest.mark.parametrize("fault", [pytest.param(fault, id=name) for name, fault in DATASET_FAULTS.items()])
def test_the_trainer_leaves_the_result_that_the_job_actor_replays(fault: DatasetFault, tmp_path: Path) -> None:
    (tmp_path / fault.key).write_text(fault.value)
    wanted = TrainSpec.model_validate(
        {
            "baseModel": {"name": "acme/tiny"},
            "dataset": {"source": {"configMapRef": {"name": "data", "key": fault.key}}, "format": fault.format},
            "output": {"hub": {"repo": "acme/adapter"}},
        }
    )
    with pytest.raises(Refusal) as refused:
        data.load(wanted, folder=tmp_path, token=None, patience=Patience())
    assert termination_message(failed(refused.value.reason, str(refused.value))) == fault.termination_message


def test_rows_are_all_of_strings_or_all_of_messages() -> None:
    mixed = [{"prompt": "a", "completion": "b"}, {"prompt": [USER], "completion": [ASSISTANT]}]
    with pytest.raises(Refusal, match=r"^data set row 2: is of messages, row 1 of strings; "):
        rows.check(mixed, data_format=P)
    with pytest.raises(Refusal, match=r"^data set row 2: is of strings, row 1 of messages; "):
        rows.check(mixed[::-1], data_format=P)
