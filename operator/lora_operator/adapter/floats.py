"""The dtypes that a LoRA's tensors may have, and how a number of each lies in its bits. Pure.

PEFT and vLLM cast whatever there is to the dtype that they compute in.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Format:
    """How a float lies in its bits: unsigned type, mask without the sign, the first pattern that is not finite."""

    unsigned: str
    magnitude: int
    not_finite: int


FORMATS = {
    "F64": Format("<u8", 0x7FFF_FFFF_FFFF_FFFF, 0x7FF0_0000_0000_0000),
    "F32": Format("<u4", 0x7FFF_FFFF, 0x7F80_0000),
    "BF16": Format("<u2", 0x7FFF, 0x7F80),
    "F16": Format("<u2", 0x7FFF, 0x7C00),
    "F8_E5M2": Format("u1", 0x7F, 0x7C),
    "F8_E4M3": Format("u1", 0x7F, 0x7F),
}
FLOATS = frozenset(FORMATS)
# As numpy calls them; a boolean is a byte that is 0 or 1.
WHOLE_NUMBERS = {
    "BOOL": "u1", "U8": "u1", "U16": "<u2", "U32": "<u4", "U64": "<u8",
    "I8": "i1", "I16": "<i2", "I32": "<i4", "I64": "<i8",
}  # fmt: skip
