"""Adapters with a copy of the base's embeddings, as PEFT saves them by default: no corpus without a base has them."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import numpy as np

from lora_operator.adapter import Code
from support.adapter_corpus import Case
from support.adapters import TensorData, make_adapter
from support.checkpoints import read_tensors
from tinymodel import cached

_EMBEDDING: Final = "model.embed_tokens"


def _embedding() -> TensorData:
    return read_tensors(cached.ensure())[f"{_EMBEDDING}.weight"]


def _changed() -> TensorData:
    dtype, shape, data = _embedding()
    return dtype, shape, np.negative(np.frombuffer(data, "<f4")).tobytes()


def _write(embedding: TensorData, folder: Path) -> Path:
    copy = {f"base_model.model.{_EMBEDDING}.base_layer.weight": embedding}
    return make_adapter(targets=["q_proj", "embed_tokens"], tensors=copy).write(folder)


COPIED: Final = (
    Case(
        name="embed_tokens as PEFT saves it by default",
        servable=True,
        write=lambda folder: _write(_embedding(), folder),
    ),
    Case(
        name="embed_tokens beside other embeddings than the base's",
        servable=False,
        codes=frozenset({Code.UNKNOWN_TENSOR}),
        write=lambda folder: _write(_changed(), folder),
    ),
)
