"""Trouble on demand: answers that fail, wait or break off, and files that aren't what their sha256 says.

A rule is tried on `METHOD /path` before anything else sees the request, on the API and on the file host alike.
"""

import asyncio
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar

import pydantic

from hubserver.gitobjects import RepoKey


@dataclass(kw_only=True, slots=True)
class Fault:
    """One rule. Without a status the request goes on after the delay; `times: -1` holds until cleared."""

    __pydantic_config__: ClassVar[pydantic.ConfigDict] = pydantic.ConfigDict(extra="forbid")

    match: str
    status: int | None = None
    times: int = 1
    code: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    delay_seconds: float = 0
    cut_after_bytes: int | None = None

    def __post_init__(self) -> None:
        try:
            re.compile(self.match)
        except re.error as error:
            raise ValueError(f"match is no regular expression: {error}") from error


class Faults:
    def __init__(self) -> None:
        self._rules: list[Fault] = []
        self._tampered: set[tuple[RepoKey, str]] = set()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._cleared = asyncio.Event()

    def bind(self, loop: asyncio.AbstractEventLoop) -> None:
        """Say which loop's requests may be waiting, so that another thread can release them."""
        self._loop = loop

    def add(self, fault: Fault) -> None:
        self._rules.append(fault)

    def clear(self) -> None:
        """Drop every rule and let the requests go on that are being delayed."""
        self._rules.clear()
        waiting, self._cleared = self._cleared, asyncio.Event()
        if self._loop is not None:
            self._loop.call_soon_threadsafe(waiting.set)

    def take(self, request_line: str) -> Fault | None:
        """Return the first rule that matches, and count it."""
        for rule in self._rules:
            if re.search(rule.match, request_line):
                rule.times -= rule.times > 0
                if rule.times == 0:
                    self._rules.remove(rule)
                return rule
        return None

    async def delay(self, seconds: float) -> None:
        """Wait, but no longer than until the faults are cleared."""
        try:
            await asyncio.wait_for(self._cleared.wait(), timeout=seconds)
        except TimeoutError:
            return

    def tamper(self, key: RepoKey, path: str) -> None:
        self._tampered.add((key, path))

    def untamper(self) -> None:
        self._tampered.clear()

    def is_tampered(self, key: RepoKey, path: str) -> bool:
        return (key, path) in self._tampered
