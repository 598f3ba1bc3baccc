"""The safetensors header: parsed by the letter of the format, from bytes that nobody has checked yet.

The operator hands in the start of a remote file (range requests), the agent the start of a local one.
Format: https://github.com/huggingface/safetensors#format - 8 bytes of length, a JSON object, then the tensors.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import BinaryIO, TypeGuard

from .findings import Code, has_surrogate, quotable
from .foreign import explain_beginning

LENGTH_BYTES = 8
# What safetensors itself allows.
HEADER_LIMIT = 100_000_000
# One request of this size brings the whole header of nearly every adapter.
FIRST_GUESS = 64 * 1024
# An adapter's header has some 150 bytes and 6 commas a tensor: this is far above any real one and keeps
# what a hostile one can make of our memory below 300 MB.
_PARSED_LIMIT = 24 * 1024 * 1024
_TOKENS_LIMIT = 1_000_000
_QUOTES_LIMIT = 1_200_000
_DIMENSIONS_LIMIT = 16
_SIZE_LIMIT = 2**63

_BITS = {
    "F4": 4, "F6_E2M3": 6, "F6_E3M2": 6,
    "BOOL": 8, "U8": 8, "I8": 8, "F8_E5M2": 8, "F8_E4M3": 8, "F8_E8M0": 8, "F8_E5M2FNUZ": 8, "F8_E4M3FNUZ": 8,
    "I16": 16, "U16": 16, "F16": 16, "BF16": 16,
    "I32": 32, "U32": 32, "F32": 32,
    "I64": 64, "U64": 64, "F64": 64, "C64": 64,
}  # fmt: skip


# What else an entry has, the library safetensors passes over, if it can read it.
_ENTRY = frozenset({"dtype", "shape", "data_offsets"})


class HeaderError(ValueError):
    """The start of the file is not a safetensors header; `code` is TruncatedFile or MalformedHeader."""

    def __init__(self, code: Code, reason: str, *, fix: str = "upload it, or save it, again") -> None:
        super().__init__(reason)
        self.code = code
        self.fix = fix


@dataclass(frozen=True, slots=True)
class Tensor:
    """One tensor as the header tells it; *begin* and *end* count from the end of the header."""

    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int

    @property
    def elements(self) -> int:
        """How many numbers it holds."""
        return math.prod(self.shape)


@dataclass(frozen=True, slots=True)
class Header:
    """A whole header: *length* bytes of JSON after the 8 of the length; tensors in the order of the file."""

    length: int
    tensors: Mapping[str, Tensor]

    @property
    def data_start(self) -> int:
        """Where in the file the first tensor begins."""
        return LENGTH_BYTES + self.length


def header_range(prefix: bytes, file_size: int) -> tuple[int, int] | None:
    """Tell which bytes, as (start, stop), are still needed after *prefix* to have the header; None if none."""
    if file_size < LENGTH_BYTES:
        raise HeaderError(Code.TRUNCATED_FILE, f"{file_size} bytes, less than the 8 of a header's length")
    if len(prefix) < LENGTH_BYTES:
        return len(prefix), min(FIRST_GUESS, file_size)
    stop = LENGTH_BYTES + _length(prefix, file_size)
    return None if len(prefix) >= stop else (len(prefix), stop)


def parse_header(data: bytes, file_size: int) -> Header:
    """Parse the header at the start of *data*, which may go on beyond it, of a file of *file_size* bytes."""
    if header_range(data, file_size) is not None:
        raise HeaderError(Code.TRUNCATED_FILE, f"{len(data)} bytes, less than the header")
    length = _length(data, file_size)
    entries = _entries(data[LENGTH_BYTES : LENGTH_BYTES + length])
    tensors = {name: _tensor(name, value) for name, value in entries.items() if name != "__metadata__"}
    ordered = dict(sorted(tensors.items(), key=lambda item: (item[1].begin, item[1].end)))
    _check_cover(ordered, file_size - LENGTH_BYTES - length)
    return Header(length, MappingProxyType(ordered))


def read_header(file: BinaryIO, file_size: int) -> Header:
    """Read the header at the start of *file*, and nothing behind it."""
    prefix = b""
    while (wanted := header_range(prefix, file_size)) and (more := file.read(wanted[1] - wanted[0])):
        prefix += more
    return parse_header(prefix, file_size)


def _length(prefix: bytes, file_size: int) -> int:
    length = int.from_bytes(prefix[:LENGTH_BYTES], "little")
    if length > HEADER_LIMIT:
        foreign = explain_beginning(prefix)
        if foreign is not None:
            raise HeaderError(Code.MALFORMED_HEADER, foreign[0], fix=foreign[1])
        reason = f"its first {LENGTH_BYTES} bytes claim a header of {length} bytes, more than the format's 100 MB"
        raise HeaderError(Code.MALFORMED_HEADER, reason)
    if LENGTH_BYTES + length > file_size:
        raise HeaderError(Code.TRUNCATED_FILE, f"the header alone has {length} bytes, the file {file_size}")
    if length > _PARSED_LIMIT:
        raise HeaderError(Code.MALFORMED_HEADER, f"has {length} bytes, more than any adapter needs ({_PARSED_LIMIT})")
    return length


def _entries(raw: bytes) -> dict[str, object]:
    """Decode the JSON object; its keys are unique, its strings whole."""
    if not raw.startswith(b"{"):
        raise _malformed("does not begin with '{'")
    if raw.count(b",") + raw.count(b"[") + raw.count(b"{") > _TOKENS_LIMIT:
        raise _malformed(f"has more than {_TOKENS_LIMIT} values")
    if raw.count(b'"') > _QUOTES_LIMIT:
        raise _malformed(f"has more than {_QUOTES_LIMIT // 2} texts")
    try:
        text = raw.decode("utf-8")
        # Only a negative zero may pass for a size; nearly no header has a minus, and a function for numbers is slow.
        parse_int = _no_negative_zero if "-" in text else None
        entries = json.loads(text, object_pairs_hook=_unique, parse_constant=_no_constant, parse_int=parse_int)
    except (RecursionError, ValueError) as error:
        if isinstance(error, HeaderError):
            raise
        raise _malformed(f"is not JSON in UTF-8 ({quotable(str(error))})") from error
    if text.rstrip(" ") != text.rstrip():
        raise _malformed("is padded with something else than spaces")
    metadata = entries.get("__metadata__")
    is_map = isinstance(metadata, dict) and all(isinstance(value, str) for value in metadata.values())
    if is_map and any(map(has_surrogate, metadata.values())):
        raise _malformed("has a __metadata__ with half a surrogate pair")
    if metadata is not None and not is_map:
        raise _malformed("has a __metadata__ that is not a map of strings")
    return dict(entries)


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    entries = dict(pairs)
    if len(entries) != len(pairs):
        raise _malformed("names something twice")
    names = "".join(entries)
    if has_surrogate(names):
        raise _malformed("has a name with half a surrogate pair")
    return entries


def _no_constant(name: str) -> object:
    raise _malformed(f"holds {name}")


def _no_negative_zero(digits: str) -> int:
    if digits == "-0":
        raise _malformed("holds a negative zero")
    return int(digits)


def _tensor(name: str, value: object) -> Tensor:
    if not isinstance(value, dict) or not value.keys() >= _ENTRY:
        raise _malformed(f"{quotable(name)} is not dtype, shape and data_offsets")
    if len(value) > len(_ENTRY) and not all(map(_is_plain, value.values())):
        raise _malformed(f"{quotable(name)} has more than dtype, shape and data_offsets")
    dtype, shape, offsets = value["dtype"], value["shape"], value["data_offsets"]
    if not isinstance(dtype, str) or dtype not in _BITS:
        raise _malformed(f"{quotable(name)} has the unknown dtype {quotable(dtype)}")
    if not _is_sizes(shape) or len(shape) > _DIMENSIONS_LIMIT:
        raise _malformed(f"{quotable(name)} has the shape {quotable(shape)}")
    if not _is_sizes(offsets) or len(offsets) != 2 or offsets[0] > offsets[1]:
        raise _malformed(f"{quotable(name)} has the data_offsets {quotable(offsets)}")
    tensor = Tensor(dtype, tuple(shape), offsets[0], offsets[1])
    if tensor.elements * _BITS[dtype] != (tensor.end - tensor.begin) * 8:
        raise _malformed(
            f"{quotable(name)} of shape {quotable(shape)} and dtype {dtype} does not fill its data_offsets"
        )
    return tensor


def _is_plain(value: object) -> bool:
    """Tell whether every reader of JSON surely reads *value*, and could pass over it."""
    match value:
        case None | bool():
            return True
        case int() | float():
            return -_SIZE_LIMIT <= value < _SIZE_LIMIT
        case str():
            return value.isascii()
        case list():
            return all(not isinstance(item, list) and _is_plain(item) for item in value)
        case _:
            return False


def _is_sizes(value: object) -> TypeGuard[list[int]]:
    if not isinstance(value, list):
        return False
    # A loop costs half of what all() does, and this is asked twice a tensor.
    for size in value:  # noqa: SIM110
        # type() and not isinstance(): true is no size.
        if type(size) is not int or not 0 <= size < _SIZE_LIMIT:
            return False
    return True


def _check_cover(ordered: Mapping[str, Tensor], data_size: int) -> None:
    """Refuse overlaps, holes, and a last byte that is not the file's last."""
    position = 0
    for name, tensor in ordered.items():
        if tensor.begin != position:
            kind = "overlaps the one before it" if tensor.begin < position else "leaves a hole before it"
            raise _malformed(f"{quotable(name)} {kind}")
        position = tensor.end
    if position > data_size:
        raise HeaderError(
            Code.TRUNCATED_FILE, f"the tensors need {position} bytes, the file has {data_size} after its header"
        )
    if position < data_size:
        raise _malformed(f"leaves {data_size - position} bytes at the end of the file to no tensor")


def _malformed(reason: str) -> HeaderError:
    return HeaderError(Code.MALFORMED_HEADER, f"the header {reason}")
