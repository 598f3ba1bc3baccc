"""`hf://<id>[@<revision>]`: how a person names a repository of the Hub, to each of our commands. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

SCHEME: Final = "hf://"
_REPO: Final = re.compile(r"(?P<repo>[A-Za-z0-9][\w.-]*(?:/[\w.-]+)?)(?:@(?P<revision>[\w./-]+))?", re.ASCII)


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
    match = _REPO.fullmatch(text.removeprefix(SCHEME)) if is_reference(text) else None
    # What huggingface_hub would refuse later with less to say.
    if match is None or re.search(r"--|\.\.", match["repo"]) or max(map(len, match["repo"].split("/"))) > 96:
        raise ValueError("not hf://org/name or hf://org/name@revision")
    return HubRepo(match["repo"], match["revision"] or "main")
