"""The safetensors header by the letter of the format, and what is asked for over the network."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lora_operator.adapter import FIRST_GUESS, WEIGHTS, Code, Header, HeaderError, header_range, parse_header
from support.adapters import make_adapter, safetensors, tensor, with_header

ONE = {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}
FILE = make_adapter().files[WEIGHTS]


def entry(**changes: object) -> bytes:
    return with_header(json.dumps({"a": ONE | changes}), b"1234")


MALFORMED = {
    "a list": with_header("[]"),
    "nothing": with_header(""),
    "a leading space": with_header(' {"a": {}}'),
    "padded with line ends": with_header("{}\n\n\n\n\n\n"),
    "not UTF-8": with_header(b'{"\xff": 1}'),
    "UTF-16": with_header("{}".encode("utf-16")),
    "a duplicate tensor": with_header(f'{{"a": {json.dumps(ONE)}, "a": {json.dumps(ONE)}}}', b"1234"),
    "a duplicate field": with_header(
        '{"a": {"dtype": "F32", "dtype": "F32", "shape": [], "data_offsets": [0, 4]}}', b"1234"
    ),
    "half a surrogate pair": with_header(
        '{"\\ud800": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}', b"1234"
    ),
    "an unknown dtype": entry(dtype="F31"),
    "a dtype that is no text": entry(dtype=["F32"]),
    "a negative size": entry(shape=[-1]),
    "a size that is true": entry(shape=[True]),
    "a size of 2^63": entry(shape=[2**63]),
    "sizes that multiply to 2^64": entry(shape=[2**32, 2**32]),
    "a thousand dimensions": entry(shape=[1] * 1000),
    "a shape that is no list": entry(shape=1),
    "offsets that are no whole numbers": entry(data_offsets=[0, 4.0]),
    "offsets the wrong way round": entry(data_offsets=[4, 0]),
    "three offsets": entry(data_offsets=[0, 4, 4]),
    "offsets that don't fit the shape": entry(shape=[2]),
    "a number beyond all floats in a further field": with_header(
        '{"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4], "more": 1e999}}', b"1234"
    ),
    "a number of 500 digits in a further field": entry(more=10**500),
    "a list of lists in a further field": entry(more=[[1]]),
    "an object in a further field": entry(more={}),
    "half a surrogate pair in a further field": entry(more="\ud800"),
    "half a surrogate pair in the metadata": with_header('{"__metadata__": {"a": "\\ud800"}}'),
    "an offset of minus zero": with_header('{"a": {"dtype": "F32", "shape": [1], "data_offsets": [-0, 4]}}', b"1234"),
    "a field too few": with_header('{"a": {"dtype": "F32", "shape": [1]}}', b"1234"),
    "a tensor that is a number": with_header('{"a": 1}'),
    "metadata that is no map of texts": with_header('{"__metadata__": {"a": 1}}'),
    "NaN": with_header('{"a": NaN}'),
    "too deeply nested": with_header("[" * 1000 + '{"a":'),
    "deeply nested in a tensor": with_header('{"a":' + "[" * 100_000 + "]" * 100_000 + "}"),
    "a million values": with_header('{"a": [' + "1," * 1_000_001 + "1]}"),
    "an integer of 10,000 digits": with_header('{"a": ' + "1" * 10_000 + "}"),
    "an overlap": with_header(json.dumps({"a": ONE, "b": ONE}), b"1234"),
    "a hole": with_header(json.dumps({"a": ONE | {"data_offsets": [4, 8]}}), b"12345678"),
    "bytes after the last tensor": safetensors({"a": tensor(np.ones(1))}, extra=b"x"),
    "a header of 2^63 bytes": (2**63).to_bytes(8, "little") + b"{}",
}


@pytest.mark.parametrize("name", MALFORMED)
def test_a_malformed_header_is_refused(name: str) -> None:
    with pytest.raises(HeaderError) as refusal:
        parse_header(MALFORMED[name], len(MALFORMED[name]))
    assert refusal.value.code is Code.MALFORMED_HEADER
    assert len(str(refusal.value)) < 1000


def test_a_good_file_is_read_as_it_is() -> None:
    header = parse_header(FILE, len(FILE))
    assert len(header.tensors) == 8
    assert list(header.tensors.values())[-1].end == len(FILE) - header.data_start
    assert sum(tensor.elements for tensor in header.tensors.values()) * 4 == len(FILE) - header.data_start


def test_empty_tensors_and_scalars_are_part_of_the_format() -> None:
    data = safetensors({"empty": tensor(np.ones((0, 4))), "scalar": tensor(np.ones(())), "after": tensor(np.ones(2))})
    assert [tensor.elements for tensor in parse_header(data, len(data)).tensors.values()] == [0, 1, 2]


def outcome(file: bytes) -> Header | Code:
    """Parse the header, or give the code of the library's own error; any other exception is the test's failure."""
    try:
        return parse_header(file, len(file))
    except HeaderError as error:
        return error.code


@given(st.integers(0, len(FILE) - 1))
def test_truncation_anywhere_is_found(length: int) -> None:
    with pytest.raises(HeaderError) as refusal:
        parse_header(FILE[:length], length)
    assert refusal.value.code is Code.TRUNCATED_FILE


@given(st.binary(max_size=200))
def test_any_bytes_give_a_header_or_the_librarys_own_error(data: bytes) -> None:
    for file in (data, with_header(data), with_header(b"{" + data + b"}")):
        assert isinstance(outcome(file), Header | Code)


TEXTS = st.text("aF32é\ud800", max_size=4)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXTS,
    lambda values: st.lists(values, max_size=4) | st.dictionaries(TEXTS, values, max_size=4),
    max_leaves=8,
)


@given(
    st.fixed_dictionaries({"dtype": st.sampled_from(["F32", "BF16", "F4"]) | JSON, "shape": JSON, "data_offsets": JSON})
)
def test_any_json_in_a_tensors_place_gives_a_header_or_the_librarys_own_error(value: object) -> None:
    file = with_header(json.dumps({"a": value}), b"1234")
    assert isinstance(outcome(file), Header | Code)


def test_range_requests_end_with_the_whole_header() -> None:
    size = 10**9
    header = with_header(json.dumps({f"tensor.{number}": ONE for number in range(2000)}))
    assert header_range(b"", size) == (0, FIRST_GUESS)
    assert header_range(header[:8], size) == (8, len(header))
    assert header_range(header[:FIRST_GUESS], size) == (FIRST_GUESS, len(header))
    assert header_range(header, size) is None


def test_a_small_file_is_read_whole_by_the_first_range() -> None:
    assert header_range(b"", 100) == (0, 100)
    with pytest.raises(HeaderError):
        header_range(b"", 7)


def test_a_header_that_claims_gigabytes_asks_for_no_bytes() -> None:
    with pytest.raises(HeaderError):
        header_range((2**32).to_bytes(8, "little"), 2**40)
