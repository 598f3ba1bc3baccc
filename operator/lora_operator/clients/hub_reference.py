"""`hf://<id>[@<revision>]`: how a person names a repository of the Hub, to each of our commands. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from lora_operator.adapter import is_hub_id

SCHEME: Final = "hf://"
_REVISION: Final = re.compile(r"[\w./-]+", re.ASCII)


@dataclass(frozen=True, slots=True)
class HubRepo:
    """A repository on a Hub, at a branch, tag or commit."""

    repo: str
    revision: str = "main"

    def __str__(self) -> str:
        return f"{SCHEME}{self.repo}" + (f"@{self.revision}" if self.revision != "main" else "")


def is_reference(text: str) -> bool:
    """Tell whether a word on a command line means a repository, and not a path."""
    return text.startswith(SCHEME)


def parse_reference(text: str) -> HubRepo:
    """Read `hf://org/name[@revision]`; ValueError where it is none."""
    repo, at, revision = text.removeprefix(SCHEME).partition("@")
    if not is_reference(text) or not is_hub_id(repo) or (at and not _REVISION.fullmatch(revision)):
        raise ValueError("not hf://org/name or hf://org/name@revision")
    return HubRepo(repo, revision or "main")
