"""The engine beside the agent, as the seam for its types: what one is asked, and how it answers. Pure.

One file per engine type has the calls (`vllm.py`). Each has a time limit and ends in a value, a `Refusal` (the engine
answered no) or a `NoAnswer`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Protocol


class Health(StrEnum):
    """How the engine answers."""

    UP = "Up"
    UNLISTED = "Unlisted"
    """It says that it is well, but not what it has: the agent lacks its key, or its list can't be read."""
    SILENT = "Silent"
    """Something listens, but does not say that it is well: it starts, hangs, or is dying."""
    DOWN = "Down"
    """Nothing listens: no engine process, or one that has not come up yet."""


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """What one look at the engine showed."""

    health: Health
    served: tuple[str, ...] = ()
    adapters: Mapping[str, str] = field(default_factory=dict)
    """Adapter name -> the path that it was loaded from."""
    reason: str = "EngineNotReady"
    """Why it isn't UP, for the report of what waits for it."""
    problem: str = ""
    """The same for a person."""


class Refusal(Exception):  # noqa: N818 - an answer, not an accident
    """The engine answered, and the answer is no."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(f"{status}: {message}")
        self.status = status
        self.message = message


class NoAnswer(Exception):  # noqa: N818 - as above
    """The engine gave no answer within the limit, or the connection broke."""

    def __init__(self, message: str, *, refused: bool = False) -> None:
        super().__init__(message)
        self.refused = refused
        """Nothing listens on the port."""


class Engine(Protocol):
    """What the agent asks of an engine of any type."""

    async def look(self) -> View:
        """Return what the engine has; never raises."""

    async def version(self) -> str:
        """Return the engine's version, empty where it doesn't say."""

    async def load(self, name: str, path: Path) -> None:
        """Load the adapter in `path` under `name`."""

    async def unload(self, name: str) -> None:
        """Make the engine forget the name; a name that it doesn't have is no error."""

    async def probe(self, name: str) -> None:
        """Return once the adapter has answered a request for one token."""

    async def busy(self) -> frozenset[str] | None:
        """Return the adapters that requests are running on or waiting for; None where the engine doesn't tell."""
