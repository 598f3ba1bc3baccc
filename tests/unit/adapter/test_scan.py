"""The one pass over the bytes: magnitudes of every float format, and chunks that don't fall on tensors."""

import hashlib
import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lora_operator.adapter import parse_header
from lora_operator.adapter.scan import scan
from support.adapters import safetensors, tensor, with_header


def magnitude(dtype: str, raw: bytes, width: int) -> float:
    data = safetensors({"a": (dtype, (len(raw) // width,), raw)})
    return scan(io.BytesIO(data), parse_header(data, len(data)), size=len(data)).magnitudes["a"]


@pytest.mark.parametrize(("dtype", "numbers", "width"), [("F16", "<f2", 2), ("F32", "<f4", 4), ("F64", "<f8", 8)])
@given(data=st.data())
def test_the_magnitude_is_the_largest_number_without_its_sign(
    dtype: str, numbers: str, width: int, data: st.DataObject
) -> None:
    raw = data.draw(st.binary(min_size=width, max_size=8 * width).filter(lambda raw: len(raw) % width == 0))
    values = np.abs(np.frombuffer(raw, numbers).astype("f8"))
    expected = float(values.max()) if np.isfinite(values).all() else np.inf
    assert magnitude(dtype, raw, width) == expected


@given(st.binary(min_size=2, max_size=16).filter(lambda raw: len(raw) % 2 == 0))
def test_bfloat16_is_the_upper_half_of_float32(raw: bytes) -> None:
    wide = np.abs((np.frombuffer(raw, "<u2").astype("<u4") << 16).view("<f4"))
    expected = float(wide.max()) if np.isfinite(wide).all() else np.inf
    assert magnitude("BF16", raw, 2) == expected


@pytest.mark.parametrize(
    ("dtype", "byte", "expected"),
    [
        ("F8_E4M3", 0x38, 1.0),
        ("F8_E4M3", 0xBC, 1.5),
        ("F8_E4M3", 0x7E, 448.0),
        ("F8_E4M3", 0x01, 2.0**-9),
        ("F8_E4M3", 0xFF, np.inf),
        ("F8_E4M3", 0x00, 0.0),
        ("F8_E5M2", 0x3C, 1.0),
        ("F8_E5M2", 0x7B, 57344.0),
        ("F8_E5M2", 0x81, 2.0**-16),
        ("F8_E5M2", 0x7C, np.inf),
        ("F8_E5M2", 0xFD, np.inf),
    ],
)
def test_float8_is_read_bit_by_bit(dtype: str, byte: int, expected: float) -> None:
    assert magnitude(dtype, bytes([byte]), 1) == expected


def test_tensors_longer_than_a_chunk_are_seen_whole() -> None:
    values = np.zeros(400_000, "f4")
    values[-1] = -3.0
    others = np.full(7, 0.5)
    data = safetensors({"small": tensor(others, "F16"), "large": tensor(values), "last": tensor(others, "BF16")})
    result = scan(io.BytesIO(data), parse_header(data, len(data)), size=len(data))
    assert result.magnitudes == {"small": 0.5, "large": 3.0, "last": 0.5}
    assert result.sha256 == hashlib.sha256(data).hexdigest()
    assert result.read == len(data)


def test_a_file_that_grows_or_shrinks_meanwhile_is_seen() -> None:
    data = safetensors({"a": tensor(np.ones(100))})
    header = parse_header(data, len(data))
    assert scan(io.BytesIO(data + b"more"), header, size=len(data)).read == len(data) + 1
    assert scan(io.BytesIO(data[:-9]), header, size=len(data)).read == len(data) - 9


def test_a_file_without_a_header_is_hashed_all_the_same() -> None:
    data = with_header("nonsense", b"x" * 2_000_000)
    assert scan(io.BytesIO(data), None, size=len(data)).sha256 == hashlib.sha256(data).hexdigest()
