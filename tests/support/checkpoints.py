"""Bases made on the spot, with random weights, in one file or several: what a merge reads.

write_base(folder)                              TINY_LLAMA in float32, one file
write_base(folder, dtype="BF16", shards=3)      in three files with their index
write_base(folder, tensors={...})               with tensors changed, or (None) left out
vouch_for(folder, commit)                       with what the Hub's client notes beside a download
read_tensors(folder)                            every tensor's bytes, dtype and shape
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from lora_operator.adapter import parse_header
from support.adapters import TINY_LLAMA, BaseShape, TensorData, safetensors, tensor

SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"
BESIDE = {
    "generation_config.json": b'{"temperature": 0.6}\n',
    "tokenizer.json": b'{"version": "1.0"}\n',
    "tokenizer_config.json": b"{}\n",
    "chat_template.jinja": b"{{ messages }}\n",
}
NOT_CARRIED = {"pytorch_model.bin": b"\x80\x02.", ".gitattributes": b"*\n"}
CARD = b"---\nlicense: apache-2.0\ntags: [x]\n---\n# A base\n"


def write_base(
    folder: Path,
    *,
    base: BaseShape = TINY_LLAMA,
    dtype: str = "F32",
    shards: int = 1,
    config: Mapping[str, object] | None = None,
    tensors: Mapping[str, TensorData | None] | None = None,
    seed: int = 7,
) -> Path:
    """Write a base into *folder* and return it."""
    folder.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(seed)
    made: dict[str, TensorData | None] = {
        name: tensor(random.normal(scale=0.1, size=shape).astype(np.float32), dtype)
        for name, shape in base.weights().items()
    }
    made |= tensors or {}
    kept = {name: data for name, data in sorted(made.items()) if data is not None}
    if shards == 1:
        (folder / SINGLE).write_bytes(safetensors(kept))
    else:
        _write_shards(folder, kept, shards)
    settings = {**base.config(), "dtype": {"F32": "float32", "F16": "float16", "BF16": "bfloat16"}[dtype]}
    (folder / "config.json").write_text(json.dumps(settings | dict(config or {}), indent=2))
    for name, data in {**BESIDE, **NOT_CARRIED, "README.md": CARD}.items():
        (folder / name).write_bytes(data)
    return folder


def vouch_for(folder: Path, commit: str) -> Path:
    """Put the Hub's word beside a base, as `hf download --local-dir` does."""
    notes = folder / ".cache" / "huggingface" / "download"
    notes.mkdir(parents=True)
    for path in folder.glob("*.safetensors"):
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        (notes / f"{path.name}.metadata").write_text(f"{commit}\n{digest}\n{path.stat().st_mtime}\n")
    return folder


def read_tensors(folder: Path) -> dict[str, TensorData]:
    """Return every tensor of a model's safetensors files."""
    found = {}
    for path in sorted(folder.glob("*.safetensors")):
        data = path.read_bytes()
        header = parse_header(data, len(data))
        for name, facts in header.tensors.items():
            start = header.data_start
            found[name] = (facts.dtype, facts.shape, data[start + facts.begin : start + facts.end])
    return found


def values(data: TensorData) -> np.ndarray:
    """Return a tensor's values in float32, which holds each of its values exactly."""
    dtype, shape, raw = data
    if dtype == "BF16":
        return (np.frombuffer(raw, "<u2").astype("<u4") << 16).view("<f4").reshape(shape)
    return np.frombuffer(raw, {"F32": "<f4", "F16": "<f2", "F64": "<f8"}[dtype]).astype("<f4").reshape(shape)


def files_of(folder: Path) -> dict[str, bytes]:
    """Return a directory's files, for comparing all of it."""
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def _write_shards(folder: Path, tensors: Mapping[str, TensorData], count: int) -> None:
    names = list(tensors)
    index: dict[str, str] = {}
    for number in range(count):
        part = names[number * len(names) // count : (number + 1) * len(names) // count]
        file = f"model-{number + 1:05d}-of-{count:05d}.safetensors"
        (folder / file).write_bytes(safetensors({name: tensors[name] for name in part}))
        index |= dict.fromkeys(part, file)
    total = sum(len(data) for _, _, data in tensors.values())
    (folder / INDEX).write_text(json.dumps({"metadata": {"total_size": total}, "weight_map": index}))
