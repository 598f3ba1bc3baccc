"""The rules over the tensors alone: names, dtypes, and the two halves of each module's LoRA.

vLLM applies every tensor that it can make sense of, PEFT those under the names that it saves.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from .base import Base
from .files import Adapter
from .findings import Code, Findings
from .floats import FLOATS, WHOLE_NUMBERS
from .foreign import explain_tensor
from .header import Tensor

# The name PEFT saves: only A and B of a module, under its prefix, in printable ASCII.
_NAME = re.compile(
    r"base_model\.model\.(?!base_model\.)(?P<module>[!-~]{1,400})\.(?:lora_(?P<linear>[AB])\.weight|lora_embedding_(?P<rows>[AB]))"
)
_PREFIX = "base_model.model."
# The whole weight of an embedding or a head, which PEFT saves beside a LoRA on it unless it is told not to.
_COPY = re.compile(r"base_model\.model\.(?P<module>(?:[!-~]{1,400}\.)?(?:embed_tokens|lm_head))\.base_layer\.weight")


@dataclass(slots=True)
class Module:
    """The two halves of one module's LoRA, as found."""

    name: str
    embedding: bool
    halves: dict[str, Tensor] = field(default_factory=dict)
    # What the file calls it, where that is an older name.
    saved_as: str | None = None

    def rank(self, half: str) -> int | None:
        """Return the rank that the shape of *half* tells; None where it is no matrix."""
        shape = self.halves[half].shape
        return shape[0 if half == "A" else 1] if len(shape) == 2 and 0 not in shape else None

    def widths_on(self, shape: tuple[int, int]) -> dict[str, int]:
        """Return how wide each half is, beside the rank, on a weight of *shape*, (out, in)."""
        # A multiplies the module's input, B makes its output; for an embedding the input is the token's row.
        rows, columns = shape
        return {"A": rows, "B": columns} if self.embedding else {"A": columns, "B": rows}

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The shape of each half."""
        return {half: tensor.shape for half, tensor in self.halves.items()}

    def rank_if_transposed(self) -> int | None:
        """Return the rank that both halves have where their widths belong: less than these, as any low rank is."""
        match self.shapes:
            case {"A": (into, rank), "B": (other, out)} if rank == other < min(into, out):
                return rank
            case _:
                return None

    def tensor_name(self, half: str) -> str:
        """Return the name under which PEFT saves *half*."""
        tail = f"lora_embedding_{half}" if self.embedding else f"lora_{half}.weight"
        return f"{_PREFIX}{self.saved_as or self.name}.{tail}"


def find_modules(adapter: Adapter, findings: Findings) -> dict[str, Module]:
    """Group the tensors by module; report those that are no part of a LoRA."""
    modules: dict[str, Module] = {}
    for header in adapter.headers.values():
        for name, tensor in header.tensors.items():
            match = _NAME.fullmatch(name)
            if match is None:
                if copied_module(name) is None:  # else `copies.check_copies` judges it
                    _report_unknown(name, findings)
                continue
            embedding = match["rows"] is not None
            module = modules.get(match["module"])
            if module is None:
                module = modules[match["module"]] = Module(match["module"], embedding)
            if module.embedding != embedding:
                _report_unknown(name, findings)
                continue
            module.halves[match["linear"] or match["rows"]] = tensor
            _check_dtype(name, tensor, findings)
    if adapter.headers and not modules and not findings.has(Code.UNKNOWN_TENSOR):
        findings.error(
            Code.NO_TENSORS,
            "the weights",
            found="no tensors",
            expected="lora_A and lora_B of at least one module",
            fix="save the adapter again after training",
        )
    return modules


def copied_module(tensor_name: str) -> str | None:
    """Return the module whose whole weight a tensor of this name is, as the file calls it."""
    # Nearly no tensor is one, and each is asked.
    match = _COPY.fullmatch(tensor_name) if tensor_name.endswith(".base_layer.weight") else None
    return match["module"] if match else None


def under_present_names(modules: Mapping[str, Module], base: Base | None) -> dict[str, Module]:
    """Call modules as transformers calls them now, where the file has a name that PEFT and vLLM know to be older."""
    named = dict(modules)
    for name in modules:
        present = base.present_name(name) if base else name
        if present not in named:
            named[present] = replace(named.pop(name), name=present, saved_as=name)
    return named


def check_pairs(modules: Mapping[str, Module], findings: Findings) -> None:
    """Report halves without the other, and halves that are no matrices."""
    for module in modules.values():
        if len(module.halves) < 2:
            half = next(iter(module.halves))
            other = "B" if half == "A" else "A"
            findings.error(
                Code.UNPAIRED_TENSOR,
                module.tensor_name(half),
                found="alone",
                expected=f"{module.tensor_name(other)} beside it",
                fix="save the adapter again",
            )
        for half, tensor in module.halves.items():
            if len(tensor.shape) != 2 or 0 in tensor.shape:
                findings.error(
                    Code.SHAPE_MISMATCH,
                    module.tensor_name(half),
                    found=list(tensor.shape),
                    expected="a matrix",
                    fix="save the adapter again",
                )


def _check_dtype(name: str, tensor: Tensor, findings: Findings) -> None:
    if tensor.dtype not in FLOATS:
        # PEFT and vLLM cast either; of numbers that were quantised, the scale is lost.
        report = findings.warning if tensor.dtype in WHOLE_NUMBERS else findings.error
        report(
            Code.UNSUPPORTED_DTYPE,
            name,
            found=tensor.dtype,
            expected=f"one of {', '.join(sorted(FLOATS))}",
            fix="save the adapter as bfloat16, float16 or float32",
        )


def _report_unknown(name: str, findings: Findings) -> None:
    magnitude = "lora_magnitude_vector" in name
    found, fix = explain_tensor(name)
    findings.error(
        Code.DORA_NOT_SUPPORTED if magnitude else Code.UNKNOWN_TENSOR,
        name,
        found=found,
        expected=f"only {_PREFIX}<module>.lora_A.weight, .lora_B.weight, .lora_embedding_A and .lora_embedding_B",
        fix=fix,
    )
