"""Whether a tensor of one file has the values of a tensor of another, read side by side."""

from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from .base import Stored
from .base_directory import open_regular
from .header import Tensor

# Elements that are compared at once.
_COUNT = 128 * 1024
_AS_NUMPY = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2"}


def has_values_of(file: BinaryIO, start: int, tensor: Tensor, stored: Stored) -> bool:
    """Tell whether *tensor*, whose first byte in *file* is at *start*, has the values of the base's *stored* one.

    Of values and not of bytes: a base of bfloat16 that was trained in float32 is saved in that. Raises OSError or
    ValueError where the base's can't be read.
    """
    dtypes = tensor.dtype, stored.tensor.dtype
    if tensor.shape != stored.tensor.shape or not _AS_NUMPY.keys() >= set(dtypes):
        return False
    sizes = [np.dtype(_AS_NUMPY[dtype]).itemsize for dtype in dtypes]
    with open_regular(stored.path) as other:
        file.seek(start)
        other.seek(stored.start)
        for position in range(0, tensor.elements, _COUNT):
            count = min(tensor.elements - position, _COUNT)
            mine, theirs = (source.read(count * size) for source, size in zip((file, other), sizes, strict=True))
            if len(mine) < count * sizes[0] or len(theirs) < count * sizes[1]:
                return False
            if not (dtypes[0] == dtypes[1] and mine == theirs) and not _are_equal((mine, theirs), dtypes):
                return False
    return True


def _are_equal(data: tuple[bytes, bytes], dtypes: tuple[str, str]) -> bool:
    mine, theirs = (_numbers(each, dtype) for each, dtype in zip(data, dtypes, strict=True))
    return bool(np.array_equal(mine, theirs))


def _numbers(data: bytes, dtype: str) -> "NDArray[np.float64]":
    numbers = np.frombuffer(data, dtype=_AS_NUMPY[dtype])
    if dtype == "BF16":  # the upper half of a float32
        numbers = (numbers.astype(np.uint32) << 16).view(np.float32)
    return numbers.astype(np.float64)
