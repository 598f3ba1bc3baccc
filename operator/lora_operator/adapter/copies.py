"""Whole embeddings that PEFT saves beside a LoRA on them, unless it is told not to: whether they are the base's own.

PEFT puts such a tensor in the place of the base's, vLLM leaves it out: both answer the same where the two are equal.
Sources: peft/utils/save_and_load.py (0.21), vllm/lora/utils.py `is_base_embedding_weights` (0.32).
"""

from collections.abc import Mapping

from .base import Base
from .files import Adapter
from .findings import Code, Findings
from .header import Tensor
from .tensors import Module, copied_module

_SAVE = "save the adapter again with PEFT's save_pretrained, with save_embedding_layers=False"


def check_copies(adapter: Adapter, modules: Mapping[str, Module], base: Base | None, findings: Findings) -> None:
    """Report copies of the base's embeddings that are not as the base has them, or could not be compared."""
    by_name = {module.saved_as or name: module for name, module in modules.items()}
    for header in adapter.headers.values():
        for name, tensor in header.tensors.items():
            copied = copied_module(name)
            if copied is not None:
                _check_copy(name, tensor, by_name.get(copied), adapter, base, findings)


def _check_copy(  # noqa: PLR0913, PLR0917 - it is one rule, of all that is known
    name: str, tensor: Tensor, module: Module | None, adapter: Adapter, base: Base | None, findings: Findings
) -> None:
    shape = base.modules.get(module.name) if base and module else None
    if module is None or (shape is not None and shape != tensor.shape):
        findings.error(
            Code.UNKNOWN_TENSOR,
            name,
            found=f"a weight of {list(tensor.shape)}" if module else "a weight beside no LoRA",
            expected=f"the base's own, of {list(shape)}" if shape else "a copy of the base's own, beside a LoRA on it",
            fix=f"{_SAVE}; where it was trained, merge it into the base with PEFT's merge_and_unload",
        )
    elif adapter.level == "header":
        findings.warning(
            Code.NOT_CHECKED,
            name,
            found="a copy of the base's weight, which only a reader of every byte compares",
            expected="exactly the base's",
            fix=_SAVE,
        )
    elif name not in adapter.copies and base is not None:
        findings.error(
            Code.BASE_NOT_READABLE,
            name,
            found="a copy of the base's weight, and no weights of the base here to compare it with",
            expected="exactly the base's (vLLM leaves it out, PEFT puts it in its place)",
            fix=f"{_SAVE}; or have the base's weights in a directory beside it",
        )
    elif not adapter.copies.get(name, True):
        findings.error(
            Code.UNKNOWN_TENSOR,
            name,
            found=f"other values than the base's, in {tensor.dtype}",
            expected="exactly the base's (vLLM leaves it out, PEFT puts it in its place)",
            fix=f"where it was not trained, and only the dtype rounded it, {_SAVE}; else merge it into the base it was "
            "trained on with PEFT's merge_and_unload",
        )
