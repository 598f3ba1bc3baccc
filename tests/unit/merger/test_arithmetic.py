"""The numbers: rounding to nearest even, sums in torch's order, and NaN and Inf seen in the bits."""

from __future__ import annotations

import numpy as np
import pytest

from lora_merger import arithmetic
from lora_merger.arithmetic import Workspace

# Halfway between two bfloat16 numbers, just below, just above; a subnormal; the largest; what rounds up to infinity.
EDGES = [1.00390625, 1.01171875, 1.0039062, 1.0039063, 1e-40, -1.0039063, 3.3895314e38, 3.4e38, 0.0, -0.0, 65519.0]


def nearest(values: np.ndarray) -> np.ndarray:
    """Round to bfloat16 the slow way: of the two neighbours the nearer one, of two equally near the even one."""
    rounded = []
    for value in values:
        bits = int(np.float32(value).view(np.uint32))
        low, rest = bits >> 16, bits & 0xFFFF
        rounded.append(low + (rest > 0x8000 or (rest == 0x8000 and low % 2 == 1)))
    return np.array(rounded, np.uint16)


def test_bfloat16_is_rounded_to_nearest_even() -> None:
    random = np.random.default_rng(0)
    values = np.concatenate([np.array(EDGES, np.float32), random.normal(size=5000).astype(np.float32)])
    space = Workspace.of(values.size)
    stored = arithmetic.store(values.copy(), "BF16", space)
    assert np.array_equal(np.frombuffer(stored, "<u2"), nearest(values))


@pytest.mark.parametrize("dtype", ["F32", "F16", "BF16"])
def test_what_is_loaded_and_stored_is_the_same(dtype: str) -> None:
    kind = "<u4" if dtype == "F32" else "<u2"
    bits = np.arange(0, 0x7F80, 7).astype(kind) if dtype != "F16" else np.arange(0, 0x7C00, 7).astype(kind)
    space = Workspace.of(bits.size)
    assert bytes(arithmetic.store(arithmetic.load(bits.data.cast("B"), dtype, space), dtype, space)) == bits.tobytes()
    assert np.array_equal(arithmetic.widen(bits.tobytes(), dtype), arithmetic.load(bits.data.cast("B"), dtype, space))


@pytest.mark.parametrize("dtype", ["F16", "BF16"])
def test_rounding_in_place_is_storing_and_loading(dtype: str) -> None:
    values = np.random.default_rng(1).normal(size=(30, 7)).astype(np.float32)
    space = Workspace.of(values.size)
    expected = arithmetic.widen(bytes(arithmetic.store(values.copy(), dtype, space)), dtype)
    assert np.array_equal(arithmetic.rounded(values, dtype, space).reshape(-1), expected)


@pytest.mark.parametrize("dtype", ["F32", "F16", "BF16"])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_one_bad_value_is_seen(dtype: str, bad: float) -> None:
    values = np.ones(1000, np.float32)
    assert arithmetic.is_storable(values, dtype)
    values[613] = bad
    assert not arithmetic.is_storable(values, dtype)


@pytest.mark.parametrize(
    ("dtype", "largest", "too_large"),
    [("F16", 65519.0, 65520.0), ("BF16", 3.3961e38, 3.39618e38), ("F32", 3.4028e38, np.inf)],
)
@pytest.mark.parametrize("sign", [1, -1])
def test_what_would_be_rounded_to_infinity_is_seen(dtype: str, largest: float, too_large: float, sign: int) -> None:
    values = np.full(1000, sign * largest, np.float32)
    assert arithmetic.is_storable(values, dtype)
    assert np.isfinite(arithmetic.widen(arithmetic.store(values.copy(), dtype, Workspace.of(1000)), dtype)).all()
    values[17] = sign * too_large
    assert not arithmetic.is_storable(values, dtype)


@pytest.mark.parametrize(
    ("rank", "panel"), [(1, 1), (16, 16), (192, 192), (200, 100), (256, 128), (384, 192), (512, 192)]
)
def test_a_high_rank_is_added_up_in_the_panels_that_torch_uses(rank: int, panel: int) -> None:
    assert arithmetic.panel(rank) == panel


@pytest.mark.parametrize("rank", [3, 16, 200, 512])
def test_a_product_is_scaled_after_it_is_added_up(rank: int) -> None:
    random = np.random.default_rng(rank)
    left, right = (random.normal(size=shape).astype(np.float32) for shape in ((40, rank), (rank, 50)))
    found = arithmetic.product(left, right, 0.3, Workspace.of(2000))
    exact = (left.astype(np.float64) @ right.astype(np.float64)) * np.float64(np.float32(0.3))
    assert np.allclose(found, exact, rtol=1e-4, atol=1e-5)
    if rank <= 192:
        assert np.array_equal(found, (left @ right) * np.float32(0.3))
