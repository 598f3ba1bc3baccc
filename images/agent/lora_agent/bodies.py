"""Reading an answer's body as far as it is wanted: whoever sends it may send without end."""

from __future__ import annotations

import aiohttp


async def read_up_to(response: aiohttp.ClientResponse, limit: int) -> bytes:
    """Return the body, or its first `limit` bytes."""
    body = bytearray()
    async for chunk in response.content.iter_any():
        body += chunk
        if len(body) >= limit:
            break
    return bytes(body[:limit])
