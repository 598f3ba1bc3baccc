"""Sending a blob: whole or a single range of it, tampered with or cut short where a test asked for that."""

from collections.abc import Iterator, Mapping

from aiohttp import web

from hubserver.blobs import Blobs
from hubserver.context import FAULT, RECORD


async def send(
    request: web.Request, blobs: Blobs, sha256: str, *, headers: Mapping[str, str], tampered: bool = False
) -> web.StreamResponse:
    size = blobs.size(sha256)
    wanted = _range(request, size)
    response = web.StreamResponse(status=200, headers={"Accept-Ranges": "bytes", **headers})
    if wanted is None:
        start, end = 0, size
    elif not wanted:
        return web.Response(status=416, headers={"Content-Range": f"bytes */{size}"})
    else:
        start, end = wanted.start, wanted.stop
        response.set_status(206)
        response.headers["Content-Range"] = f"bytes {start}-{end - 1}/{size}"
    response.content_type = "application/octet-stream"
    response.content_length = end - start
    request[RECORD].status = response.status
    await response.prepare(request)
    if request.method == "GET":
        chunks = blobs.read(sha256, start=start, end=end)
        await _write(request, response, _flipped(chunks, last=size - start - 1) if tampered else chunks)
    return response


async def _write(request: web.Request, response: web.StreamResponse, chunks: Iterator[bytes]) -> None:
    record, fault = request[RECORD], request.get(FAULT)
    left = fault.cut_after_bytes if fault is not None else None
    for whole in chunks:
        chunk = whole if left is None else whole[:left]
        record.sent_bytes += len(chunk)
        await response.write(chunk)
        if left is not None:
            left -= len(chunk)
            if left == 0 and request.transport is not None:
                request.transport.close()
                return


def _range(request: web.Request, size: int) -> range | None:
    """Return the one range asked for, clipped; empty where it lies outside; None for none, several or nonsense."""
    try:
        asked = request.http_range
    except ValueError:
        return None
    if request.method == "HEAD" or (asked.start is None and asked.stop is None):
        return None
    return range(size)[asked.start : asked.stop]


def _flipped(chunks: Iterator[bytes], *, last: int) -> Iterator[bytes]:
    """Invert the content's last byte, at *last* from the first chunk's start: same size, another sha256."""
    at = 0
    for chunk in chunks:
        here = last - at
        if 0 <= here < len(chunk):
            yield chunk[:here] + bytes([chunk[here] ^ 0xFF]) + chunk[here + 1 :]
        else:
            yield chunk
        at += len(chunk)
