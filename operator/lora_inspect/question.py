"""What was asked: the command line as a value. Pure; `__main__` makes it, every other room reads it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from lora_operator.adapter import EngineLimits, is_hub_id
from lora_operator.clients.hub_reference import HubRepo, is_reference, parse_reference

Source = Path | HubRepo


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """May this engine be given this adapter?"""

    adapter: Source
    base: Source | None
    base_name: str | None
    engine: EngineLimits
    unknown_shapes: Literal["refuse", "allow"] = "refuse"
    header_only: bool = False


def parse_source(text: str) -> Source:
    """Read `PATH` or `hf://org/name[@revision]`; ValueError where it is neither."""
    if is_reference(text):
        return parse_reference(text)
    if not text or "\0" in text:
        raise ValueError("not a path")
    return Path(text)


def parse_base_name(text: str) -> str:
    """Read a Hub id; ValueError where it can be none, and would be compared in vain."""
    if not is_hub_id(text):
        raise ValueError("not a model's name on a Hub, such as org/name or gpt2; where the base lies is for --base")
    return text
