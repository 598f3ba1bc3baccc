"""The type of a model's numbers."""

from __future__ import annotations

from enum import StrEnum


class Dtype(StrEnum):
    """The type that the base model's weights are loaded in."""

    AUTO = "Auto"
    BFLOAT16 = "BFloat16"
    FLOAT32 = "Float32"
