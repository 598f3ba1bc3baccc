"""Safetensors headers from where a file is read by spans, as by the range requests of a Hub: never the weights.

Operator, agent and `lora-inspect` bring what reads a span; each has a client of its own.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Mapping
from typing import Final

from lora_operator.adapter import (
    Base,
    Header,
    HeaderError,
    base_from_config,
    base_from_headers,
    base_weights_files,
    header_range,
    parse_header,
)

ReadSpan = Callable[[str, int, int], Awaitable[bytes]]
"""Reads the bytes [start, stop) of a file, or fewer where it ends."""

_SHARDS_LIMIT: Final = 512
BYTES_LIMIT: Final = 64 << 20
"""For all of a base's headers: six times those of the largest models that there are."""
_AT_ONCE: Final = 8


async def read_start(read: ReadSpan, name: str, *, size: int) -> bytes:
    """Read the start of a safetensors file up to the end of its header, in one request for nearly every file."""
    data = b""
    with contextlib.suppress(HeaderError):  # whoever parses what is here finds the same, and says so
        while (wanted := header_range(data, size)) is not None:
            more = await read(name, *wanted)
            if not more:
                break
            data += more
    return data


async def read_shapes(
    read: ReadSpan, sizes: Mapping[str, int], config: Mapping[str, object] | None, *, limit: int = BYTES_LIMIT
) -> Base | None:
    """Return a base's shapes by the headers of all of its shards, else by its config; *sizes* are its files'."""
    headers = await _read_headers(read, {name: sizes[name] for name in base_weights_files(sizes)}, limit)
    # In a thread: the headers of a large mixture of experts are megabytes of JSON.
    exact = await asyncio.to_thread(base_from_headers, headers, config) if headers else None
    return exact or (base_from_config(config) if config is not None else None)


async def _read_headers(read: ReadSpan, shards: Mapping[str, int], limit: int) -> list[Header]:
    """Read every shard's header; none where one of them is no safetensors file, or there is too much to ask for."""
    if len(shards) > _SHARDS_LIMIT:
        return []
    turn, bounded = asyncio.Semaphore(_AT_ONCE), _bounded(read, limit)

    async def header(name: str, size: int) -> Header:
        async with turn:
            data = await read_start(bounded, name, size=size)
            return await asyncio.to_thread(parse_header, data, size)

    # Nothing is left on its way: a request that nobody waits for keeps its connection.
    found = await asyncio.gather(*(header(name, size) for name, size in shards.items()), return_exceptions=True)
    for one in found:
        if isinstance(one, BaseException) and not isinstance(one, HeaderError | _TooMuchError):
            raise one
    headers = [one for one in found if isinstance(one, Header)]
    return headers if len(headers) == len(shards) else []


class _TooMuchError(Exception):
    """More would be read than is allowed."""


def _bounded(read: ReadSpan, left: int) -> ReadSpan:
    """Return what reads no more than so many bytes in all."""

    async def bounded(name: str, start: int, stop: int) -> bytes:
        nonlocal left
        left -= stop - start
        if left < 0:
            raise _TooMuchError
        return await read(name, start, stop)

    return bounded
