"""The bound on values: what stays below it can't overflow, on any base, whichever inputs others send."""

import numpy as np
import pytest

from lora_operator.adapter.values import GAIN_LIMIT

WIDTHS = [(128, 384, 8), (4096, 14336, 16), (4096, 14336, 256), (16384, 53248, 512), (131072, 131072, 1)]


@pytest.mark.parametrize(("width", "inner", "rank"), WIDTHS)
def test_the_longest_way_between_two_norms_stays_finite_at_the_largest_gain(width: int, inner: int, rank: int) -> None:
    """The worst there is: all elements of A, B and the input the same, so that nothing cancels."""
    norm = np.float32(500)

    def lora(element: np.float32, into: int) -> np.float32:
        largest = np.float32((GAIN_LIMIT / (rank * into)) ** 0.5)
        return largest * np.float32(into) * element * largest * np.float32(rank)

    with np.errstate(over="raise"):
        inside = lora(norm, width) * lora(norm, width)
        assert np.isfinite(lora(inside, inner))
