"""What is known of a base from its headers, and of a shard once it is finished. Frozen values, nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from lora_operator.adapter import Header


@dataclass(frozen=True, slots=True, kw_only=True)
class Shard:
    """One weights file: *head* is the header with the length before it, as it is in the file."""

    name: str
    size: int
    head: bytes
    header: Header


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """A base as far as its headers tell."""

    config: Mapping[str, object]
    shards: tuple[Shard, ...]
    indexed: bool
    carried: tuple[str, ...]
    """The files beside the weights that the merged model gets as they are; config and index are not among them."""

    @property
    def tied(self) -> bool:
        """Whether head and embedding are one weight."""
        text = self.config.get("text_config")
        flag = self.config.get("tie_word_embeddings", isinstance(text, dict) and text.get("tie_word_embeddings"))
        return bool(flag) or not any("lm_head.weight" in shard.header.tensors for shard in self.shards)


@dataclass(frozen=True, slots=True, kw_only=True)
class Finished:
    """A whole shard of the output: a digest of what was computed in it, and the sha256 of what it was made from."""

    name: str
    size: int
    changes: str
    source_sha256: str
