"""Reads a data set that came as a file, or as a folder of files: jsonl, json, csv or parquet; and digests of files.

Text by the standard library and not by `datasets`: a broken line can be named.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

from lora_operator.protocol.training import Reason
from lora_trainer.result import Refusal
from lora_trainer.rows import Row, own_fields

SAMPLES: Final = 64
BLOCK: Final = 1 << 20


def read(path: Path, *, field: str) -> list[Row]:
    """Return the file's rows. `field` names the spec's field that led here."""
    reader = _READERS.get(path.suffix.lower())
    if reader is None:
        known = ", ".join(_READERS)
        raise Refusal(Reason.CONFIG_INVALID, f"{field}: {path.name!r} ends in none of {known}")
    try:
        if reader is _parquet:
            return _parquet(str(path), path.name)
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError as error:
        raise Refusal(Reason.CONFIG_INVALID, f"{field}: there is no file {path.name!r} in {path.parent}") from error
    except UnicodeDecodeError as error:
        raise Refusal(Reason.DATASET_INVALID, f"{field}: {path.name} is not UTF-8 text: {error.reason}") from error
    return reader(text, path.name)


def within(path: Path, *, field: str) -> list[Path]:
    """Return the file itself, or the files of a folder that hold rows, sorted by name."""
    if not path.is_dir():
        return [path]
    found = sorted(file for file in path.iterdir() if file.suffix.lower() in _READERS and file.is_file())
    if not found:
        raise Refusal(Reason.CONFIG_INVALID, f"{field}: no file in {path.name} ends in {', '.join(_READERS)}")
    return found


def digest(paths: Sequence[Path], *, of: Callable[[Path], str] | None = None) -> str:
    """Return the digest of a file; of several, that of the lines `<sha256>  <name>` as sha256sum prints them.

    `of` is how one is digested: in full, or `sampled`.
    """
    sums = [((of or sha256)(path), path.name) for path in paths]
    if len(sums) == 1:
        return f"sha256:{sums[0][0]}"
    lines = "".join(f"{value}  {name}\n" for value, name in sums)
    return f"sha256:{hashlib.sha256(lines.encode()).hexdigest()}"


def sha256(path: Path) -> str:
    """Return the digest of all of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sampled(path: Path) -> str:
    """Return a digest of a file's size, its ends, and blocks spread over it: all of it, where it is small.

    For weights: their header lies at the front, and training changes numbers everywhere. In full they would cost a
    minute for each 100 GB.
    """
    size = path.stat().st_size
    if size <= SAMPLES * BLOCK:
        return sha256(path)
    hashed = hashlib.sha256(f"{size}\n".encode())
    with path.open("rb") as file:
        for number in range(SAMPLES):
            file.seek((size - BLOCK) * number // (SAMPLES - 1))
            hashed.update(file.read(BLOCK))
    return hashed.hexdigest()


def _jsonl(text: str, name: str) -> list[Row]:
    rows: list[Row] = []
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            rows.append(_object(_parsed(line, where=f"line {number} of {name}"), where=f"line {number} of {name}"))
    return rows


def _json(text: str, name: str) -> list[Row]:
    if not text.strip():
        return []
    value = _parsed(text, where=name)
    if not isinstance(value, list):
        raise Refusal(Reason.DATASET_INVALID, f"data set: {name} holds no list of rows")
    return [_object(row, where=f"row {number} of {name}") for number, row in enumerate(value, start=1)]


def _csv(text: str, name: str) -> list[Row]:
    lines = csv.reader(io.StringIO(text, newline=""), strict=True)
    try:
        table = [line for line in lines if line]
    except csv.Error as error:
        raise Refusal(Reason.DATASET_INVALID, f"data set: line {lines.line_num} of {name}: {error}") from error
    if not table:
        return []
    header, *body = table
    if twice := next((column for index, column in enumerate(header) if column in header[:index]), None):
        raise Refusal(Reason.DATASET_INVALID, f"data set: the header of {name} has the column {twice!r} twice")
    for number, line in enumerate(body, start=1):
        if len(line) != len(header):
            message = f"data set: row {number} of {name} has {len(line)} columns, its header {len(header)}"
            raise Refusal(Reason.DATASET_INVALID, message)
    return [dict(zip(header, line, strict=True)) for line in body]


def _parquet(path: str, name: str) -> list[Row]:
    from pyarrow import ArrowInvalid, parquet

    try:
        rows: list[Row] = parquet.read_table(path).to_pylist()
    except ArrowInvalid as error:
        raise Refusal(Reason.DATASET_INVALID, f"data set: {name} is no parquet file: {error}") from error
    return [own_fields(row) for row in rows]


def _parsed(text: str, *, where: str) -> object:
    try:
        value: object = json.loads(text)
    except json.JSONDecodeError as error:
        message = f"data set: {where} is not JSON: {error.msg} at column {error.colno}"
        raise Refusal(Reason.DATASET_INVALID, message) from error
    except RecursionError as error:
        raise Refusal(Reason.DATASET_INVALID, f"data set: {where} is nested too deeply") from error
    return value


def _object(value: object, *, where: str) -> Row:
    if not isinstance(value, Mapping):
        raise Refusal(Reason.DATASET_INVALID, f"data set: {where} is not an object")
    return value


_READERS: Final[Mapping[str, Callable[[str, str], list[Row]]]] = {
    ".jsonl": _jsonl,
    ".ndjson": _jsonl,
    ".json": _json,
    ".csv": _csv,
    ".parquet": _parquet,
}
