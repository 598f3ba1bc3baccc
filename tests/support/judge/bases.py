"""The base models that are asked about: the tiny Llama, and others of its size, made where the judge sits."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Final

from imagebuild import engine as heavy
from support.adapters import TINY_LLAMA, TINY_PHI3, TINY_QWEN2, BaseShape
from tinymodel import cached

BASES: Final = (TINY_LLAMA, TINY_QWEN2, TINY_PHI3)
"""Qwen2 has biases on some projections and none on others, Phi-3 keeps several in one; its head is the embeddings."""
# What the tokenizer, which they share, says of its tokens, and how much the engine keeps in mind.
_SHARED: Final = ("bos_token_id", "eos_token_id", "pad_token_id", "max_position_embeddings")


def make(base: BaseShape, folder: Path) -> Path:
    """Return the directory of *base*, made in *folder* unless it is the tiny model of the cache."""
    llama = cached.ensure()
    if base == TINY_LLAMA:
        return llama
    shared = json.loads((llama / "config.json").read_bytes())
    sizes = base.config() | {name: shared[name] for name in _SHARED if name in shared}
    place = folder / base.model_type
    script = Path(__file__).with_name("base_side.py")
    command = heavy.command([str(heavy.PYTHON), str(script), str(place)], engine=heavy.ensure())
    subprocess.run(command, input=json.dumps(sizes), capture_output=True, text=True, check=True)
    for file in llama.iterdir():
        if "token" in file.name or "template" in file.name:
            shutil.copy(file, place)
    return place
