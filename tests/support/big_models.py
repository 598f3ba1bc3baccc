"""Bases of gigabytes with made-up weights, written shard by shard: what benchmarks merge into."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from support.adapters import BaseShape, encode

SHARD = 500_000_000
SHAPES = {
    "0.5 GB": BaseShape(hidden=1024, inner=2816, layers=16, heads=16, kv_heads=16, head_dim=64, vocabulary=32000),
    "2.2 GB": BaseShape(hidden=2048, inner=5632, layers=22, heads=32, kv_heads=4, head_dim=64, vocabulary=32000),
}
# One stretch of random values, which every tensor begins at another place of.
_VALUES = 8_000_009


def write(folder: Path, base: BaseShape, *, seed: int = 0) -> Path:
    """Write a base in bfloat16, in shards of 500 MB, as transformers names and loads it."""
    folder.mkdir(parents=True)
    random = np.random.default_rng(seed)
    raw = encode(random.normal(scale=0.02, size=_VALUES).astype(np.float32), "BF16") * 2
    shapes = base.weights() | {
        f"model.layers.{layer}.post_attention_layernorm.weight": (base.hidden,) for layer in range(base.layers)
    }
    parts = _parts(shapes)
    index: dict[str, str] = {}
    for number, part in enumerate(parts):
        name = f"model-{number + 1:05d}-of-{len(parts):05d}.safetensors"
        index |= dict.fromkeys(part, name)
        _write_shard(folder / name, part, raw, random)
    total = sum(2 * int(np.prod(shape)) for shape in shapes.values())
    (folder / "model.safetensors.index.json").write_text(
        json.dumps({"metadata": {"total_size": total}, "weight_map": index})
    )
    (folder / "config.json").write_text(json.dumps(base.config() | {"dtype": "bfloat16"}))
    return folder


def _parts(shapes: Mapping[str, tuple[int, ...]]) -> list[dict[str, tuple[int, ...]]]:
    parts: list[dict[str, tuple[int, ...]]] = [{}]
    size = 0
    for name, shape in sorted(shapes.items()):
        count = 2 * int(np.prod(shape))
        if size and size + count > SHARD:
            parts.append({})
            size = 0
        parts[-1][name] = shape
        size += count
    return parts


def _write_shard(path: Path, shapes: Mapping[str, tuple[int, ...]], raw: bytes, random: np.random.Generator) -> None:
    entries: dict[str, object] = {"__metadata__": {"format": "pt"}}
    position = 0
    for name, shape in shapes.items():
        end = position + 2 * int(np.prod(shape))
        entries[name] = {"dtype": "BF16", "shape": list(shape), "data_offsets": [position, end]}
        position = end
    head = json.dumps(entries).encode()
    head += b" " * (-len(head) % 8)
    with path.open("wb") as file:
        file.write(len(head).to_bytes(8, "little") + head)
        for shape in shapes.values():
            left = 2 * int(np.prod(shape))
            while left:
                start = 2 * int(random.integers(_VALUES))
                part = raw[start : start + min(left, 2 * _VALUES)]
                file.write(part)
                left -= len(part)
