"""Reading an answer's body as far as it is wanted: whoever sends it may send without end."""

from __future__ import annotations

from collections.abc import AsyncIterator

import aiohttp


async def read_up_to(response: aiohttp.ClientResponse, limit: int) -> bytes:
    """Return the body, or its first `limit` bytes."""
    body = bytearray()
    async for chunk in response.content.iter_any():
        body += chunk
        if len(body) >= limit:
            break
    return bytes(body[:limit])


class CutError(Exception):
    """The body is longer than the limit, or ends in the middle of a line."""


async def lines_of(response: aiohttp.ClientResponse, limit: int) -> AsyncIterator[str]:
    """Yield the body's lines as they come; raises CutError where not all of it is there to see."""
    read, rest = 0, b""
    async for chunk in response.content.iter_any():
        read += len(chunk)
        if read > limit:
            raise CutError
        *lines, rest = (rest + chunk).split(b"\n")
        for line in lines:
            yield line.decode(errors="replace")
    if rest:
        raise CutError
