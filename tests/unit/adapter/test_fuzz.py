"""Whatever stands in the files: an answer, not an exception; little memory; and no file of anybody else is opened.

The same examples each time. FUZZ_EXAMPLES=20000 looks at more, and at others.
"""

from __future__ import annotations

import importlib
import json
import math
import os
import shutil
import sys
import tempfile
import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lora_operator.adapter import (
    CONFIG,
    WEIGHTS,
    EngineLimits,
    FileFacts,
    HeaderError,
    Verdict,
    base_from_config,
    from_parts,
    inspect,
    open_directory,
    parse_header,
)
from support import measuring
from support.adapters import TINY_LLAMA, make_adapter, with_header

pytestmark = pytest.mark.timeout(300)

MEGABYTE = 1_000_000
MEMORY = 300 * MEGABYTE
WANTED = os.environ.get("FUZZ_EXAMPLES")
fuzzed = settings(max_examples=int(WANTED or 150), derandomize=WANTED is None, deadline=None, database=None)

GOOD = make_adapter()
BASE = base_from_config(TINY_LLAMA.config())
ENGINE = EngineLimits(max_lora_rank=16, device="cpu", dtype="float16", version="0.32.0")
INDEX = "adapter_model.safetensors.index.json"
SHARD = "adapter_model-00001-of-00002.safetensors"

TEXTS = st.one_of(
    st.text(max_size=12),
    st.sampled_from(
        ["", "\ud800", "..", "/etc/passwd", "\x00", "a" * 5000, "(a+)+$", "(", "[q", "\\", ".*", "a|b", "{1,9}"]
    ),
)
NUMBERS = st.one_of(
    st.integers(-(2**70), 2**70),
    st.floats(allow_nan=True, allow_infinity=True),
    st.sampled_from([0, -1, 1, 8, 2**31, 2**63, 2**64, 10**400, 1e308, 5e-324, -0.0]),
)
VALUES = st.recursive(
    st.one_of(st.none(), st.booleans(), NUMBERS, TEXTS),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(TEXTS, inner, max_size=4)),
    max_leaves=12,
)


def documents(known: dict[str, Any]) -> st.SearchStrategy[dict[str, Any]]:
    """Return strategies for a JSON object like *known* in which some fields are something else, or missing."""
    changes = st.dictionaries(st.one_of(st.sampled_from(sorted(known)), TEXTS), VALUES, max_size=4)
    dropped = st.sets(st.sampled_from(sorted(known)), max_size=2)
    return st.builds(lambda new, old: {k: v for k, v in (known | new).items() if k not in old}, changes, dropped)


def encodings(values: st.SearchStrategy[Any]) -> st.SearchStrategy[bytes]:
    """Return strategies for the bytes of a JSON document, now and then spoilt."""
    whole = values.map(lambda value: json.dumps(value).encode())
    return st.one_of(
        whole,
        whole.map(lambda data: data.decode().encode("utf-16")),
        st.tuples(whole, st.integers(0, 400)).map(lambda pair: pair[0][: pair[1]]),
        st.tuples(whole, st.integers(0, 400), st.binary(max_size=8)).map(
            lambda parts: parts[0][: parts[1]] + parts[2] + parts[0][parts[1] :]
        ),
        whole.map(lambda data: data[:-1] + b"," + data[1:]),  # every name twice
        st.binary(max_size=300),
    )


DATA = GOOD.files[WEIGHTS]
START = parse_header(DATA, len(DATA)).data_start
HEADER: dict[str, Any] = json.loads(DATA[8:START])
CONFIGS = encodings(st.one_of(documents(GOOD.config), VALUES))
TENSOR: dict[str, Any] = {"dtype": "F32", "shape": [8, 128], "data_offsets": [0, 4096]}
HEADERS = encodings(
    st.one_of(
        documents(HEADER),
        VALUES,
        st.dictionaries(
            st.one_of(st.sampled_from(sorted(HEADER)), TEXTS),
            st.one_of(documents(TENSOR), documents({"dtype": "F8_E4M3", "shape": [], "data_offsets": [0, 1]})),
            max_size=3,
        ),
    )
)
LENGTHS = st.one_of(st.none(), st.integers(0, 2**64 - 1), st.integers(0, 4000))


@st.composite
def weights(draw: st.DrawFn) -> bytes:
    """Draw a safetensors file: a header, perhaps with another length before it, and the data, perhaps cut."""
    header, length = draw(HEADERS), draw(LENGTHS)
    made = with_header(header, DATA[START:] if draw(st.booleans()) else draw(st.binary(max_size=64)))
    if length is not None:
        made = length.to_bytes(8, "little") + made[8:]
    return made[: draw(st.integers(0, len(made)))] if draw(st.booleans()) else made


def check(verdict: Verdict) -> None:
    """An answer has to fit into a condition, an Event and a log, whatever it quotes."""
    message = verdict.message()
    assert len(message) <= 1024
    for text in (message, *(str(finding) for finding in verdict.findings)):
        assert text.isprintable()
        text.encode()
    assert len(verdict.findings) < 1000
    assert verdict.servable is (not verdict.errors)
    for figure in (verdict.summary.lora_alpha, verdict.summary.scaling):
        assert figure is None or math.isfinite(figure)


@contextmanager
def little_memory() -> Iterator[None]:
    tracemalloc.start()
    try:
        yield
        assert tracemalloc.get_traced_memory()[1] < MEMORY
    finally:
        tracemalloc.stop()


@fuzzed
@given(config=CONFIGS, data=weights())
def test_parts_of_a_remote_adapter_get_an_answer(config: bytes, data: bytes) -> None:
    files = {CONFIG: FileFacts(len(config)), WEIGHTS: FileFacts(len(data))}
    with little_memory():
        check(inspect(from_parts(config, files=files, headers={WEIGHTS: data}), BASE, ENGINE, base_name="tiny/llama"))


@fuzzed
@given(config=CONFIGS, data=weights(), index=encodings(VALUES), sharded=st.booleans())
def test_a_directory_gets_an_answer_at_both_levels(config: bytes, data: bytes, index: bytes, sharded: bool) -> None:
    with tempfile.TemporaryDirectory() as name, little_memory():
        folder = Path(name)
        (folder / CONFIG).write_bytes(config)
        (folder / (SHARD if sharded else WEIGHTS)).write_bytes(data)
        (folder / INDEX).write_bytes(index)
        for level in ("header", "full"):
            check(inspect(open_directory(folder, level=level), BASE, ENGINE))  # type: ignore[arg-type]
            check(inspect(open_directory(folder, level=level), None, EngineLimits()))  # type: ignore[arg-type]


@fuzzed
@given(data=weights())
def test_a_header_is_parsed_or_refused_by_its_own_error(data: bytes) -> None:
    try:
        header = parse_header(data, len(data))
    except HeaderError:
        return
    assert sum(tensor.end - tensor.begin for tensor in header.tensors.values()) == len(data) - header.data_start


@fuzzed
@given(config=documents(TINY_LLAMA.config()))
def test_a_base_s_config_tells_shapes_or_nothing(config: dict[str, Any]) -> None:
    with little_memory():
        base = base_from_config(config)
        check(inspect(GOOD.parts(), base, ENGINE))


BOMBS = {
    "tensors of nothing": lambda: with_header(
        "{" + ",".join(f'"{n}":{{"dtype":"F32","shape":[0],"data_offsets":[0,0]}}' for n in range(160_000)) + "}"
    ),
    "modules of nothing": lambda: with_header(
        "{"
        + ",".join(
            f'"base_model.model.m{n}.lora_A.weight":{{"dtype":"F32","shape":[0,0],"data_offsets":[0,0]}}'
            for n in range(160_000)
        )
        + "}"
    ),
    "a long name": lambda: with_header('{"' + "a" * 23 * MEGABYTE + '":1}'),
    "a long shape": lambda: with_header('{"a":{"dtype":"F32","shape":[' + "1," * 900_000 + '1],"data_offsets":[0,4]}}'),
    "small lists": lambda: with_header("[" + "[]," * 480_000 + "1]"),
    "small objects": lambda: with_header('{"a":[' + "{}," * 480_000 + "1]}"),
    "escapes": lambda: with_header('{"' + "\\u00e4" * 3_800_000 + '":1}'),
    "wide characters": lambda: with_header('{"' + "\U0001f600" * 5_500_000 + '":1}'),
    "metadata": lambda: with_header('{"__metadata__":{' + ",".join(f'"{n}":"{n}"' for n in range(900_000)) + "}}"),
    "deep": lambda: with_header("[" * 900_000),
    "more than the format allows": lambda: (100_000_001).to_bytes(8, "little") + b" " * 1000,
    "as much as the format allows": lambda: with_header(b"{" + b" " * 99_999_990 + b"}"),
}
INSPECT = """
import sys
from lora_operator.adapter import EngineLimits, base_from_config, inspect, open_directory
base = base_from_config({"model_type": "llama", "hidden_size": 128, "intermediate_size": 384, "vocab_size": 2048,
                         "num_hidden_layers": 2, "num_attention_heads": 4})
for level in ("header", "full"):
    assert not inspect(open_directory(sys.argv[1], level=level), base, EngineLimits()).servable
"""


@pytest.mark.parametrize("bomb", BOMBS)
def test_no_header_blows_up_its_reader(bomb: str, tmp_path: Path) -> None:
    GOOD.with_file(WEIGHTS, BOMBS[bomb]()).write(tmp_path)
    assert peak(tmp_path) < MEMORY


@pytest.mark.parametrize(
    "config",
    [
        pytest.param(b"[" * 2**20, id="deep"),
        pytest.param(b"[" + b"[]," * 66_000 + b"1]", id="small lists"),
        pytest.param(b"{" + b",".join(b'"%d":{}' % n for n in range(90_000)) + b"}", id="fields"),
        pytest.param(b'{"r":' + b"9" * 2**20 + b"}", id="a number of a million digits"),
        pytest.param(b" " * (64 * 2**20), id="64 MB of spaces"),
        pytest.param(
            json.dumps(GOOD.config | {"rank_pattern": {f"layers.{n}.q_proj": 8 for n in range(30_000)}}).encode(),
            id="patterns",
        ),
        pytest.param(
            json.dumps(GOOD.config | {"target_modules": [f"x{n}" for n in range(90_000)]}).encode(), id="targets"
        ),
    ],
)
def test_no_config_blows_up_its_reader(config: bytes, tmp_path: Path) -> None:
    GOOD.with_file(CONFIG, config).truncated().write(tmp_path)
    assert peak(tmp_path) < MEMORY


def peak(folder: Path) -> float:
    """Return the most memory that a process had which inspected *folder*, the interpreter's own included."""
    return float(measuring.python(INSPECT + measuring.PRINT_PEAK, str(folder)).output) * 2**20


OPENED: list[str] = []
WATCHING = [False]


def _watch(event: str, arguments: tuple[Any, ...]) -> None:
    # An integer is a descriptor that was opened before, and seen then.
    if WATCHING[0] and event == "open" and not isinstance(arguments[0], int):
        OPENED.append(str(arguments[0]))


@pytest.fixture(scope="module", autouse=True)
def _audit() -> None:
    # The library imports it at its first use, which opens files of its own.
    importlib.import_module("lora_operator.adapter.scan")
    # Can't be taken away again, so it looks only while a test wants it to.
    sys.addaudithook(_watch)


KINDS = ("file", "missing", "pipe", "directory", "device", "outside", "above", "absolute", "inside", "loop", "twice")


def place(folder: Path, outside: Path, name: str, kind: str) -> None:
    """Put something of a kind in the place of a file."""
    path = folder / name
    match kind:
        case "file":
            path.write_bytes(GOOD.files.get(name, b"{}"))
        case "pipe":
            os.mkfifo(path)
        case "directory":
            path.mkdir()
        case "missing":
            pass
        case _:
            if kind == "inside":
                (folder / "blob").write_bytes(GOOD.files.get(name, b"{}"))
            if kind == "twice":
                (folder / "link").unlink(missing_ok=True)
                (folder / "link").symlink_to(outside / name)
            target = {
                "device": "/dev/zero",
                "outside": str(outside / name),
                "above": f"../{outside.name}/{name}",
                "absolute": "/etc/passwd",
                "inside": "blob",
                "loop": name,
                "twice": "link",
            }[kind]
            path.symlink_to(target)


@fuzzed
@given(kinds=st.tuples(*(st.sampled_from(KINDS) for _ in range(4))), level=st.sampled_from(["header", "full"]))
def test_nothing_outside_the_directory_is_opened(kinds: tuple[str, ...], level: Any) -> None:
    root = Path(tempfile.mkdtemp())
    folder, outside = root / "adapter", GOOD.write(root / "outside")
    folder.mkdir()
    try:
        for name, kind in zip((CONFIG, WEIGHTS, SHARD, INDEX), kinds, strict=True):
            place(folder, outside, name, kind)
        (folder / "adapter_model.bin").symlink_to("/dev/zero")
        OPENED.clear()
        WATCHING[0] = True
        read = open_directory(folder, level=level)
        WATCHING[0] = False
        check(inspect(read, BASE, ENGINE))
        # Relative to the directory, links not followed: what has a slash would lead elsewhere.
        assert [name for name in OPENED if "/" in name] == [str(folder)]
        inside = {entry.name for entry in folder.iterdir() if entry.is_file() and not entry.is_symlink()}
        assert set(OPENED) - {str(folder)} <= inside
    finally:
        WATCHING[0] = False
        shutil.rmtree(root)
