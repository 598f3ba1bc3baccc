"""What vLLM looks at in an adapter's directory before it takes it, in its order and with its words (vLLM 0.32).

Not the adapter library: that one is stricter on purpose, and the fake engine must let through what the real one does.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

_PACKED = {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj", "embed_tokens", "lm_head"}

# Copies of the base's own, which PEFT saves beside a LoRA on them.
_LEFT_OUT = (".embed_tokens.base_layer.weight", ".lm_head.base_layer.weight")


class NotThere(Exception):  # noqa: N818 - an answer, not an accident
    """There is no adapter in this place."""


class RefusedError(Exception):
    """The worker can't load it; the text is its own."""


def check(path: Path, *, max_lora_rank: int) -> None:
    """Raise what vLLM would raise for the adapter at a path."""
    config = _config(path)
    rank = config.get("r", 0)
    if config.get("modules_to_save") not in (None, ["classifier", "score"]):
        raise RefusedError(
            'vLLM only supports modules_to_save being either None or ["classifier", "score"], '
            f"but got: {config['modules_to_save']}"
        )
    if config.get("use_dora"):
        raise RefusedError("vLLM does not yet support DoRA.")
    if rank > max_lora_rank:
        raise RefusedError(f"LoRA rank {rank} is greater than max_lora_rank {max_lora_rank}.")
    if config.get("bias") not in (None, "none"):
        raise RefusedError("Adapter bias is not supported.")
    tensors = _tensors(path)
    foreign = sorted(_module(name) for name in tensors if _module(name).rpartition(".")[2] not in _PACKED)
    if foreign:
        raise RefusedError(f"While loading {path}, expected target modules in {_PACKED} but received {foreign}")
    for name, tensor in tensors.items():
        ranks = tensor["shape"][0] if name.endswith((".lora_A.weight", ".lora_embedding_A")) else tensor["shape"][-1]
        if ranks > max_lora_rank:
            raise RefusedError(
                f"The size of tensor a ({max_lora_rank}) must match the size of tensor b ({ranks}) "
                "at non-singleton dimension 0"
            )


def is_there(path: str) -> bool:
    """Tell whether an adapter's files are still in their place."""
    return Path(path, "adapter_config.json").is_file()


def fingerprint(path: Path) -> str:
    """Return what the answers of the adapter at a path depend on: its weights."""
    return hashlib.sha256((path / "adapter_model.safetensors").read_bytes()).hexdigest()


def _config(path: Path) -> dict[str, Any]:
    try:
        text = (path / "adapter_config.json").read_text(encoding="utf-8")
    except OSError as error:
        raise NotThere(str(path)) from error
    try:
        config: dict[str, Any] = json.loads(text)
    except ValueError as error:
        raise RefusedError(str(error)) from error
    return config


def _tensors(path: Path) -> dict[str, Any]:
    try:
        data = (path / "adapter_model.safetensors").read_bytes()
    except OSError as error:
        raise RefusedError(f"{path} doesn't contain tensors") from error
    if len(data) < 8:
        raise RefusedError("Error while deserializing header: header too small")
    length = int.from_bytes(data[:8], "little")
    if length > 100_000_000:
        raise RefusedError("Error while deserializing header: header too large")
    if 8 + length > len(data):
        raise RefusedError("Error while deserializing header: invalid header length")
    header: dict[str, Any] = json.loads(data[8 : 8 + length])
    tensors = {name: tensor for name, tensor in header.items() if name != "__metadata__"}
    end = max((tensor["data_offsets"][1] for tensor in tensors.values()), default=0)
    if 8 + length + end > len(data):
        raise RefusedError("Error while deserializing header: incomplete metadata, file not fully covered")
    return {name: tensor for name, tensor in tensors.items() if not name.endswith(_LEFT_OUT)}


def _module(name: str) -> str:
    """Return the module that a tensor belongs to."""
    for half in (".lora_A.", ".lora_B.", ".lora_embedding_"):
        if half in name:
            return name.partition(half)[0].removeprefix("base_model.model.")
    return name.removeprefix("base_model.model.")
