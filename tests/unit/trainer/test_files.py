"""A data set's file is read as its name says, and a broken place in it is named."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from lora_operator.protocol.training import Reason
from lora_trainer import files
from lora_trainer.result import Refusal

ROWS = [{"text": "a"}, {"text": "b"}]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("x.jsonl", '{"text": "a"}\n\n{"text": "b"}'),
        ("x.JSONL", '\ufeff{"text": "a"}\r\n{"text": "b"}\r\n'),
        ("x.json", '[{"text": "a"}, {"text": "b"}]'),
        ("x.csv", "text\na\n\nb\n"),
    ],
)
def test_each_kind_of_file_is_read(name: str, content: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(content, encoding="utf-8")
    assert files.read(tmp_path / name, field="key") == ROWS


def test_a_csv_cell_may_hold_lines_and_commas(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text('prompt,completion\n"a,\nb",c\n')
    assert files.read(tmp_path / "x.csv", field="key") == [{"prompt": "a,\nb", "completion": "c"}]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("x.jsonl", '{{"text": "a{odd}b"}}\n'),
        ("x.csv", "text\na{odd}b\n"),
    ],
)
@pytest.mark.parametrize("odd", ["\u2028", "\x85"], ids=ascii)
def test_only_a_line_feed_ends_a_row(name: str, content: str, odd: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(content.format(odd=odd), encoding="utf-8")
    assert files.read(tmp_path / name, field="key") == [{"text": f"a{odd}b"}]


@pytest.mark.parametrize("name", ["x.jsonl", "x.json", "x.csv"])
def test_an_empty_file_has_no_rows(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text("")
    assert files.read(tmp_path / name, field="key") == []


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("x.jsonl", b'{"a": 1}\n{"a"', "line 2 of x.jsonl is not JSON: Expecting ':' delimiter at column 5"),
        ("x.jsonl", b"[1]", "line 1 of x.jsonl is not an object"),
        ("x.json", b'{"data": []}', "x.json holds no list of rows"),
        ("x.json", b"[{}, 2]", "row 2 of x.json is not an object"),
        ("x.csv", b"a,b\n1,2\n3\n", "row 2 of x.csv has 1 columns, its header 2"),
        ("x.csv", b'a\n"b', "line 2 of x.csv: unexpected end of data"),
        ("x.csv", b"text,label,text\na,1,b\n", "the header of x.csv has the column 'text' twice"),
        ("x.csv", b"\xff\xfe", "x.csv is not UTF-8 text"),
    ],
)
def test_a_broken_file_is_a_fault_of_the_data_set(name: str, content: bytes, sentence: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(Refusal) as refused:
        files.read(tmp_path / name, field="key")
    assert refused.value.reason is Reason.DATASET_INVALID
    assert sentence in str(refused.value)


def test_a_row_nested_too_deeply_is_named(tmp_path: Path) -> None:
    path = tmp_path / "deep.jsonl"
    path.write_text('{"text": "a"}\n' + '{"text": ' + "[" * 100_000 + "]" * 100_000 + "}\n")
    with pytest.raises(Refusal, match=r"^data set: line 2 of deep.jsonl is nested too deeply$") as refused:
        files.read(path, field="x")
    assert refused.value.reason is Reason.DATASET_INVALID


@pytest.mark.parametrize(
    ("name", "sentence"),
    [("x.txt", "key: 'x.txt' ends in none of .jsonl"), ("gone.csv", "key: there is no file 'gone.csv'")],
)
def test_a_wrong_key_is_a_fault_of_the_spec(name: str, sentence: str, tmp_path: Path) -> None:
    with pytest.raises(Refusal) as refused:
        files.read(tmp_path / name, field="key")
    assert refused.value.reason is Reason.CONFIG_INVALID
    assert str(refused.value).startswith(sentence)


def test_a_large_file_is_digested_by_its_size_its_ends_and_blocks_between(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    size = 2 * files.SAMPLES * files.BLOCK
    with path.open("wb") as file:
        file.truncate(size)
    seen = {files.sampled(path)}
    for place in (0, size - 1, (size - files.BLOCK) * 31 // (files.SAMPLES - 1) + 5):
        with path.open("r+b") as file:
            file.seek(place)
            file.write(b"x")
        seen.add(files.sampled(path))
    with path.open("ab") as file:
        file.write(b"x")
    seen.add(files.sampled(path))
    assert len(seen) == 5


def test_a_small_file_is_digested_in_full(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    assert files.sampled(tmp_path / "config.json") == hashlib.sha256(b"{}").hexdigest()
