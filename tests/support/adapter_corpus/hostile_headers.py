"""A safetensors header as a weapon: sizes that lie, tensors over each other, bombs for a parser's memory."""

import json
from collections.abc import Callable, Mapping

from lora_operator import adapter
from lora_operator.adapter import WEIGHTS, Code
from support.adapter_corpus.case import Case, bad, good
from support.adapters import AdapterFiles, make_adapter, with_header

_TENSOR = {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}
_SAFETY = "the format forbids it, and another reader may see another file"


def _header(change: Callable[[str], str], *, extra: bytes = b"") -> AdapterFiles:
    """Change the text of the plain adapter's header, and leave the data alone."""
    whole = make_adapter()
    data = whole.files[WEIGHTS]
    start = adapter.parse_header(data, len(data)).data_start
    text = change(data[8:start].decode().rstrip(" "))
    return whole.with_file(WEIGHTS, with_header(text, data[start:] + extra))


def _entries(entries: Mapping[str, object], data: bytes = b"\0" * 4) -> AdapterFiles:
    return make_adapter().with_file(WEIGHTS, with_header(json.dumps(entries), data))


def _first(**changes: object) -> AdapterFiles:
    """Change the first tensor's entry."""

    def change(text: str) -> str:
        entries = json.loads(text)
        name = next(name for name in entries if name != "__metadata__")
        entries[name] |= changes
        return json.dumps(entries)

    return _header(change)


def _metadata(value: object) -> AdapterFiles:
    return _header(lambda text: json.dumps(json.loads(text) | {"__metadata__": value}))


def _length(value: int) -> AdapterFiles:
    whole = make_adapter()
    return whole.with_file(WEIGHTS, value.to_bytes(8, "little") + whole.files[WEIGHTS][8:])


_LENGTHS = (
    bad("a header of 2^63 bytes", Code.MALFORMED_HEADER, lambda: _length(2**63)),
    bad("a header of 2^64 - 1 bytes", Code.MALFORMED_HEADER, lambda: _length(2**64 - 1)),
    bad("a header of more than 100 MB", Code.MALFORMED_HEADER, lambda: _length(100_000_001)),
    bad("a header longer than the file", Code.TRUNCATED_FILE, lambda: _length(99_000_000)),
    bad("a header of no bytes", Code.MALFORMED_HEADER, lambda: _length(0)),
    bad("a header that ends in the middle", Code.MALFORMED_HEADER, lambda: _length(100)),
)

_TEXTS = (
    bad("a header that is a list", Code.MALFORMED_HEADER, lambda: make_adapter().with_file(WEIGHTS, with_header("[]"))),
    bad("a header in UTF-16", Code.MALFORMED_HEADER, lambda: make_adapter().with_file(
        WEIGHTS, with_header(json.dumps({"a": _TENSOR}).encode("utf-16"), b"\0" * 4))),
    bad("a header nested 100,000 deep", Code.MALFORMED_HEADER, lambda: make_adapter().with_file(
        WEIGHTS, with_header(b'{"a":' * 100_000 + b"1" + b"}" * 100_000))),
    bad("half a surrogate pair in a tensor's name", Code.MALFORMED_HEADER, lambda: _entries({"\ud800": _TENSOR})),
    bad("a name twice", Code.MALFORMED_HEADER,
        lambda: _header(lambda text: text[:-1] + "," + _again(text) + "}"),
        askable=False, why=_SAFETY),
    bad("a space before the header", Code.MALFORMED_HEADER, lambda: _header(lambda text: " " + text), askable=False,
        why=_SAFETY),
    bad("line feeds after the header", Code.MALFORMED_HEADER, lambda: _header(lambda text: text + "\n" * 8),
        why=_SAFETY),
    bad("metadata that is a list", Code.MALFORMED_HEADER, lambda: _entries({"__metadata__": [], "a": _TENSOR})),
    bad("metadata with a number", Code.MALFORMED_HEADER, lambda: _entries({"__metadata__": {"a": 1}, "a": _TENSOR})),
    bad("NaN in the header", Code.MALFORMED_HEADER,
        lambda: make_adapter().with_file(WEIGHTS, with_header('{"a": NaN}'))),
)  # fmt: skip

_SIZES = (
    bad("an unknown dtype", Code.MALFORMED_HEADER, lambda: _first(dtype="F12")),
    bad("a dtype that is a number", Code.MALFORMED_HEADER, lambda: _first(dtype=7)),
    bad("a size of 2^63", Code.MALFORMED_HEADER, lambda: _first(shape=[2**63, 1])),
    bad("sizes whose product is beyond 2^64", Code.MALFORMED_HEADER, lambda: _first(shape=[2**62, 2**62])),
    bad("a negative size", Code.MALFORMED_HEADER, lambda: _first(shape=[-8, -128])),
    bad("a size that is true", Code.MALFORMED_HEADER, lambda: _first(shape=[True, 1024])),
    bad("a size with a fraction", Code.MALFORMED_HEADER, lambda: _first(shape=[8.0, 128])),
    bad("a shape that is not what the offsets hold", Code.MALFORMED_HEADER, lambda: _first(shape=[8, 129])),
    bad("offsets the wrong way round", Code.MALFORMED_HEADER, lambda: _first(data_offsets=[4096, 0])),
    bad("offsets of 2^63", Code.MALFORMED_HEADER, lambda: _first(data_offsets=[2**63, 2**63 + 4096])),
    bad("a tensor over another", Code.MALFORMED_HEADER, lambda: _first(data_offsets=[4096, 8192])),
    bad("a field missing", Code.MALFORMED_HEADER, lambda: _entries({"a": {"dtype": "F32", "shape": [1]}})),
    bad("a tensor that is a text", Code.MALFORMED_HEADER, lambda: _entries({"a": "b"})),
    bad("a hole between tensors", Code.MALFORMED_HEADER,
        lambda: _entries({"a": _TENSOR, "b": _TENSOR | {"data_offsets": [8, 12]}}, b"\0" * 12)),
    bad("bytes after the last tensor", Code.MALFORMED_HEADER, lambda: _header(lambda text: text, extra=b"\0" * 8)),
    bad("a tensor beyond the file", Code.TRUNCATED_FILE, lambda: _entries({"a": _TENSOR}, b"")),
    bad("33 dimensions", Code.MALFORMED_HEADER, lambda: _entries({"a": _TENSOR | {"shape": [1] * 33}})),
)  # fmt: skip

_BOMBS = (
    bad("10^6 tensors", Code.MALFORMED_HEADER, lambda: make_adapter().with_file(WEIGHTS, with_header(
        "{" + ",".join(f'"{n}":{{"dtype":"F32","shape":[0],"data_offsets":[0,0]}}' for n in range(10**6)) + "}")),
        askable=False, why="no adapter needs them, and each costs its reader memory"),
    bad("20,000 tensors of layers that the base lacks", Code.LAYER_OUT_OF_RANGE, lambda: _many(20_000),
        askable=False, why="vLLM drops them"),
    bad("a shape of a million sizes", Code.MALFORMED_HEADER,
        lambda: _entries({"a": _TENSOR | {"shape": [1] * 1_000_000}})),
)  # fmt: skip


def _again(text: str) -> str:
    """Return the first tensor's entry once more."""
    entries = json.loads(text)
    name = next(name for name in entries if name != "__metadata__")
    return f"{json.dumps(name)}:{json.dumps(entries[name])}"


def _many(count: int) -> AdapterFiles:
    name = "base_model.model.model.layers.{}.self_attn.q_proj.lora_{}.weight"
    entries = {
        name.format(2 + number // 2, "AB"[number % 2]): {"dtype": "F32", "shape": [0, 0], "data_offsets": [0, 0]}
        for number in range(count)
    }
    return _entries(entries, b"")


ODD_HEADERS: tuple[Case, ...] = (
    good("metadata null", lambda: _metadata(None)),
    good("a field more in a tensor's entry", lambda: _first(strides=[1, 2])),
)
HOSTILE_HEADERS: tuple[Case, ...] = (*_LENGTHS, *_TEXTS, *_SIZES, *_BOMBS)
