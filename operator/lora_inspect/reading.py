"""Reading what was asked about: a directory here, or a repository on a Hub by range requests.

Everything about an adapter's content becomes a finding; what can't be reached or read at all is a CannotTellError.
"""

from __future__ import annotations

import asyncio
import errno
import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Final, Literal

from huggingface_hub import get_token

from lora_inspect.question import Question, Source
from lora_operator.adapter import (
    BASE_CONFIG,
    CONFIG,
    Adapter,
    Base,
    base_from_config,
    base_from_directory,
    open_directory,
    read_base_config,
    weights_files,
)
from lora_operator.clients.hub import Hub, Place
from lora_operator.clients.hub_reading import read_adapter, read_base
from lora_operator.clients.hub_reference import HubRepo
from lora_operator.errors import PassError

Progress = Callable[[int], None]
_A_BASE: Final = f"give its directory, its {BASE_CONFIG}, or hf://org/name"


class CannotTellError(Exception):
    """Nothing can be said about the adapter; the message says why, for a person."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """An adapter and its base as read; *bytes_read* of the files of both."""

    adapter: Adapter
    base: Base | None
    bytes_read: int


def size_of(question: Question) -> int:
    """Return how many bytes `read` is going to read of a directory; 0 where they are few, or not known."""
    if not isinstance(question.adapter, Path) or question.header_only or not question.adapter.is_dir():
        return 0
    try:
        names = weights_files(entry.name for entry in question.adapter.iterdir())
        return sum((question.adapter / name).lstat().st_size for name in names)
    except OSError:
        return 0  # `read` meets it too, and says it


def read(question: Question, progress: Progress | None = None) -> Reading:
    """Read the adapter and, where one was given, the base; *progress* hears of each piece read of a directory."""
    try:
        return asyncio.run(_read(question, progress))
    except PassError as error:
        raise CannotTellError(f"{error.message} ({error.reason})") from error


async def _read(question: Question, progress: Progress | None) -> Reading:
    hub = _Counting(Hub())
    if isinstance(question.adapter, HubRepo):
        adapter, here = await hub.adapter(question.adapter), 0
        base = await _base(hub, question.base)
    else:
        _check_place(question.adapter)
        base = await _base(hub, question.base)
        adapter = _directory(question, question.adapter, base, progress)
        here = _bytes_of(adapter)
    return Reading(adapter=adapter, base=base, bytes_read=here + hub.bytes_read)


def _check_place(path: Path) -> None:
    """Find out before a base is fetched that there is nothing to compare with it."""
    if path.exists() and not path.is_dir():
        raise CannotTellError(f"{path}: not a directory; give the one that holds {CONFIG}")
    if not path.exists():
        raise CannotTellError(f"{path}: {os.strerror(errno.ENOENT)}")


def _directory(question: Question, path: Path, base: Base | None, progress: Progress | None) -> Adapter:
    try:
        level: Literal["header", "full"] = "header" if question.header_only else "full"
        return open_directory(path, level=level, stored=base.stored if base else None, progress=progress)
    except OSError as error:
        raise CannotTellError(f"{path}: {error.strerror or error}") from error


def _bytes_of(adapter: Adapter) -> int:
    if adapter.level == "full":
        return adapter.size_bytes
    return len(adapter.config_bytes or b"") + sum(header.data_start for header in adapter.headers.values())


async def _base(hub: _Counting, source: Source | None) -> Base | None:
    if source is None:
        return None
    if isinstance(source, HubRepo):
        return await hub.base(source)
    try:
        return base_from_directory(source) if source.is_dir() else base_from_config(read_base_config(source))
    except FileNotFoundError as error:
        missing = f"no {BASE_CONFIG} in it" if source.is_dir() else "no such file or directory"
        raise CannotTellError(f"--base {source}: {missing}; {_A_BASE}") from error
    except OSError as error:
        raise CannotTellError(f"--base {source}: {error.strerror or error}") from error
    except ValueError as error:
        raise CannotTellError(f"--base {source}: {error}") from error


class _Counting:
    """The Hub with the person's token; counts the bytes of files that come over the network."""

    def __init__(self, hub: Hub) -> None:
        self._hub: Final = hub
        self.bytes_read = 0

    @cached_property
    def _token(self) -> str | None:
        """Whoever asks about directories here alone has no token read."""
        return get_token()

    async def adapter(self, source: HubRepo) -> Adapter:
        place = _place(source)
        snapshot = await self._hub.resolve(place, token=self._token)
        return await read_adapter(self, place, snapshot, token=self._token)

    async def base(self, source: HubRepo) -> Base | None:
        place = _place(source)
        snapshot = await self._hub.resolve(place, token=self._token)
        return (await read_base(self, place, snapshot, token=self._token)).shapes

    async def read(
        self, place: Place, path: str, *, token: str | None, span: tuple[int, int] | None = None, limit: int
    ) -> bytes:
        data = await self._hub.read(place, path, token=token, span=span, limit=limit)
        self.bytes_read += len(data)
        return data


def _place(source: HubRepo) -> Place:
    return Place(
        source.repo,
        source.revision,
        repo_field="its name",
        revision_field="what stands behind @",
        token_field="HF_TOKEN",  # noqa: S106 - a variable's name
        meanwhile="try again later",
    )
