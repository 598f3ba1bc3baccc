"""Directories and files that are no adapter, or no whole one, or lead out of their directory."""

import json
import os
from pathlib import Path

from lora_operator import adapter
from lora_operator.adapter import CONFIG, WEIGHTS, Code
from support.adapter_corpus.case import Case, bad, folder
from support.adapters import AdapterFiles, make_adapter, safetensors

_SHARD = "adapter_model-00001-of-00001.safetensors"
_INDEX = "adapter_model.safetensors.index.json"


def _sharded(index: object) -> AdapterFiles:
    whole = make_adapter()
    data = whole.files[WEIGHTS]
    names = adapter.parse_header(data, len(data)).tensors
    told = {"metadata": {}, "weight_map": dict.fromkeys(names, _SHARD)} if index is None else index
    return whole.with_file(WEIGHTS, None).with_file(_SHARD, data).with_file(_INDEX, json.dumps(told).encode())


def _without(name: str, place: Path) -> Path:
    return make_adapter().with_file(name, None).write(place)


def _linked_out(name: str, place: Path) -> Path:
    outside = make_adapter().write(place.with_name(f"{place.name}-outside"))
    _without(name, place)
    (place / name).symlink_to(outside / name)
    return place


def _linked(name: str, target: str, place: Path) -> Path:
    _without(name, place)
    (place / name).symlink_to(target)
    return place


def _made(name: str, make: str, place: Path) -> Path:
    _without(name, place)
    {"pipe": os.mkfifo, "directory": os.mkdir}[make](place / name)
    return place


_MISSING = (
    bad("no tensors", Code.NO_TENSORS, lambda: make_adapter().with_file(WEIGHTS, safetensors({}))),
    bad("an empty file", Code.TRUNCATED_FILE, lambda: make_adapter().with_file(WEIGHTS, b"")),
    bad("garbage", Code.MALFORMED_HEADER, lambda: make_adapter().with_file(WEIGHTS, b"\xff" * 64)),
    bad("a pickle alone", Code.PICKLE_ONLY, lambda: make_adapter().pickle_only()),
    bad("no weights", Code.MISSING_FILE, lambda: make_adapter().with_file(WEIGHTS, None)),
    bad("no config", Code.MISSING_CONFIG, lambda: make_adapter().with_file(CONFIG, None)),
    bad("nothing at all", Code.MISSING_CONFIG, lambda: AdapterFiles({})),
    bad("a page of the Hub in the place of the weights", Code.MALFORMED_HEADER,
        lambda: make_adapter().with_file(WEIGHTS, b"version https://git-lfs.github.com/spec/v1\noid sha256:00\n")),
)  # fmt: skip

_CUT = tuple(
    bad(f"truncated by {count} bytes", Code.TRUNCATED_FILE, lambda count=count: make_adapter().truncated(count))  # type: ignore[misc]
    for count in (1, 4, 4096, 16_000)
)

_SHARDS = (
    bad("shards", Code.SHARDED_WEIGHTS, lambda: _sharded(None)),
    bad("shards without an index", Code.SHARDED_WEIGHTS, lambda: _sharded(None).with_file(_INDEX, None)),
    bad("an index that leads out of the directory", Code.MALFORMED_INDEX,
        lambda: _sharded({"weight_map": {"a": "../../etc/passwd"}})),
    bad("an index of an absolute path", Code.MALFORMED_INDEX, lambda: _sharded({"weight_map": {"a": "/etc/passwd"}})),
    bad("an index that names a shard which is not there", Code.MALFORMED_INDEX,
        lambda: _sharded({"weight_map": {"a": "adapter_model-00002-of-00002.safetensors"}})),
    bad("an index that is a list", Code.MALFORMED_INDEX, lambda: _sharded([])),
    bad("an index whose map is a list", Code.MALFORMED_INDEX, lambda: _sharded({"weight_map": [1]})),
)  # fmt: skip

_SPECIAL = tuple(
    case
    for name in (CONFIG, WEIGHTS)
    for case in (
        folder(f"{name} is a link out of the directory", Code.NOT_A_REGULAR_FILE,
               lambda place, name=name: _linked_out(name, place), askable=False),  # type: ignore[misc]
        folder(f"{name} is a link to nothing", Code.NOT_A_REGULAR_FILE,
               lambda place, name=name: _linked(name, "nowhere", place)),  # type: ignore[misc]
        folder(f"{name} is a link to itself", Code.NOT_A_REGULAR_FILE,
               lambda place, name=name: _linked(name, name, place)),  # type: ignore[misc]
        folder(f"{name} is a device", Code.NOT_A_REGULAR_FILE,
               lambda place, name=name: _linked(name, "/dev/zero", place), askable=False),  # type: ignore[misc]
        folder(f"{name} is a pipe", Code.NOT_A_REGULAR_FILE,
               lambda place, name=name: _made(name, "pipe", place), poisonous=True),  # type: ignore[misc]
        folder(f"{name} is a directory", Code.NOT_A_REGULAR_FILE,
               lambda place, name=name: _made(name, "directory", place)),  # type: ignore[misc]
    )
)  # fmt: skip

BAD_FILES: tuple[Case, ...] = (*_MISSING, *_CUT, *_SHARDS, *_SPECIAL)
