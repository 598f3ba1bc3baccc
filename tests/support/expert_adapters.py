"""Adapters on experts before PEFT: run in the heavy environment, `... <folder of tiny models> <folder>`.

Writes each case's adapter to `<folder>/<number>/`, and right.json: whether PEFT answers with it as a base does into
which each tensor was folded by its name, which is what vLLM does with them.
"""

from __future__ import annotations

import json
import math
import re
import sys
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

ATTENTION = ("q_proj", "k_proj", "v_proj", "o_proj")
_MIXTRAL, _QWEN = ("w1", "w2", "w3"), ("gate_proj", "down_proj", "up_proj")
_MLP = r"\.(block_sparse_moe|mlp)"
_EXPERTS = rf".*{_MLP}\.experts\..*"


Case = tuple[str, object, str, Mapping[str, Any]]
"""The model, target_modules, a regex of the modules that have tensors, and what else is in the config."""


def _of(first: str, down: str, second: str, model: str) -> list[Case]:
    """Return the cases of a family whose experts PEFT joins: model, targets, the modules with tensors, more config."""
    everything = [*ATTENTION, first, down, second, "gate"]
    cases: list[tuple[object, str, Mapping[str, Any]]] = [
        (everything, _EXPERTS, {}),
        ("all-linear", rf"{_EXPERTS}|.*self_attn.*|.*{_MLP}\.gate", {}),
        (everything, rf".*{_MLP}\.gate", {}),
        ([down], rf".*experts.*\.{down}", {}),
        ([first, second], rf"{_EXPERTS}(?<!{down})", {}),
        ([*ATTENTION, first], r".*q_proj", {}),
        (everything, r".*experts\.[01]\..*|.*q_proj", {}),
        (everything, rf".*experts.*\.{first}", {}),
        (everything, _EXPERTS, {"use_rslora": True}),
        (["gate"], rf".*{_MLP}\.gate", {"use_rslora": True}),
        (everything, _EXPERTS, {"alpha_pattern": {first: 64}}),
        (everything, _EXPERTS, {"lora_dropout": 0.05}),
        (everything, r".*q_proj", {"lora_dropout": 0.05}),
        ("all-linear", r".*q_proj", {"lora_dropout": 0.05, "exclude_modules": ".*mlp.*"}),
        ("all-linear", r".*q_proj", {"init_lora_weights": False}),
        (r".*\.experts\.\d+\..*", _EXPERTS, {}),
        (r".*self_attn.*_proj", r".*self_attn.*", {"lora_dropout": 0.05}),
        (["q_proj", "experts"], r".*q_proj", {}),
        (["q_proj", "mlp"], r".*q_proj", {}),
    ]
    return [(model, *case) for case in cases]


CASES: list[Case] = [
    *_of(*_MIXTRAL, "mixtral"),
    *_of(*_QWEN, "qwen3_moe"),
    ("qwen3_moe", list(_QWEN), r".*layers\.0\.mlp\..*", {}),
    ("qwen2_moe", [*ATTENTION, *_QWEN], _EXPERTS, {}),
    ("qwen2_moe", ["q_proj", "gate"], r".*q_proj", {}),
    ("qwen2_moe", "all-linear", r".*q_proj|.*shared_expert.*|.*layers\.1\.mlp.*", {"lora_dropout": 0.05}),
    ("qwen2_moe", "all-linear", rf".*{_MLP}\.gate", {}),
]
_RANK, _ALPHA = 4, 8


def main() -> None:
    """Ask PEFT about each."""
    warnings.filterwarnings("ignore")
    models, folder = map(Path, sys.argv[1:])
    right = [_is_right(models, folder / str(number), case) for number, case in enumerate(CASES)]
    (folder / "right.json").write_text(json.dumps(right))


def _is_right(models: Path, adapter: Path, case: Case) -> bool:
    # Here, for the light environment reads the table.
    import torch
    from peft import PeftModel
    from safetensors.torch import load_file, save_file
    from transformers import AutoModelForCausalLM

    def answer(loaded: Any) -> Any:
        with torch.no_grad():
            return loaded.eval()(torch.arange(1, 20)[None]).logits

    name, targets, modules, others = case
    model = models / name
    weights = load_file(model / "model.safetensors")
    folded = dict(weights)
    tensors: dict[str, Any] = {}
    torch.manual_seed(0)
    for name, weight in weights.items():
        module = name.removesuffix(".weight")
        if weight.ndim != 2 or not re.fullmatch(modules, module):
            continue
        a, b = torch.randn(_RANK, weight.shape[1]) * 0.3, torch.randn(weight.shape[0], _RANK) * 0.3
        tensors |= {f"base_model.model.{module}.lora_A.weight": a, f"base_model.model.{module}.lora_B.weight": b}
        folded[name] = weight + _scaling(module, others) * b @ a
    adapter.mkdir(parents=True)
    save_file(tensors, adapter / "adapter_model.safetensors")
    config = {"peft_type": "LORA", "task_type": "CAUSAL_LM", "r": _RANK, "lora_alpha": _ALPHA}
    (adapter / "adapter_config.json").write_text(json.dumps({**config, "target_modules": targets, **others}))
    expected = adapter.with_name(f"{adapter.name}-folded")
    expected.mkdir()
    save_file(folded, expected / "model.safetensors", metadata={"format": "pt"})
    (expected / "config.json").write_bytes((model / "config.json").read_bytes())
    base = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
    try:
        found = answer(PeftModel.from_pretrained(base, adapter))
    except Exception:  # noqa: BLE001 - whatever PEFT raises, it refuses it
        return False
    wanted = answer(AutoModelForCausalLM.from_pretrained(expected, dtype=torch.float32))
    return bool(torch.allclose(found, wanted, atol=1e-3))


def _scaling(module: str, config: Mapping[str, Any]) -> float:
    alpha = config.get("alpha_pattern", {}).get(module.rpartition(".")[2], _ALPHA)
    return float(alpha / (math.sqrt(_RANK) if config.get("use_rslora") else _RANK))


if __name__ == "__main__":
    main()
