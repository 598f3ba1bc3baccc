"""A door between an operator and the apiserver that knows every write, and ends the operator at one of them.

Writes pass one at a time, so that a crash leaves exactly those before it. Each life of the operator has a port of its
own: what a life that is over still had under way never arrives.

    with FaultProxy.running(plane, crash=CrashPoint("apply loraadapters/bot", 1)) as proxy:
        proxy.kill = ...
        start(proxy.open_door())
"""

from __future__ import annotations

import asyncio
import json
import re
import ssl
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import aiohttp
from aiohttp import web
from yarl import URL

from localcluster import ControlPlane

Object = dict[str, Any]
Moment = Literal["before", "after"]

_WRITES = {"POST": "create", "PATCH": "apply", "PUT": "update", "DELETE": "delete"}
_NO_STATE = {"events", "tokenreviews"}
"""What is posted and changes nothing that a pass goes by."""
_HOP = {"host", "connection", "content-length", "transfer-encoding", "keep-alive"}


@dataclass(frozen=True)
class CrashPoint:
    """A write around which an operator is killed: the `nth` of `what`, first before it, and in the next life after."""

    what: str
    nth: int

    def __str__(self) -> str:
        return f"{self.what} ({self.nth})"


@dataclass(frozen=True)
class Write:
    """One write that reached the apiserver, and its answer."""

    what: str
    nth: int
    status: int


class FaultProxy:
    """The proxy of one operator. Its methods are for the thread of the test."""

    kill: Callable[[], None]
    """What ends the operator, and starts its next life at another door."""

    def __init__(self, plane: ControlPlane, *, crash: CrashPoint | None) -> None:
        self._plane = plane
        self._crash = crash
        self._doors: set[int] = set()
        self._seen: Counter[str] = Counter()
        self._last = time.monotonic()
        self._loop = asyncio.new_event_loop()
        self._turn = asyncio.Lock()
        self.writes: list[Write] = []
        self.kills: list[Moment] = []

    @classmethod
    @contextmanager
    def running(cls, plane: ControlPlane, *, crash: CrashPoint | None = None) -> Iterator[FaultProxy]:
        """Stand between for the time of a with-block, on a thread of its own."""
        proxy = cls(plane, crash=crash)
        up, down = threading.Event(), asyncio.Event()
        thread = threading.Thread(target=lambda: proxy._loop.run_until_complete(proxy._serve(up, down)))
        thread.start()
        up.wait()
        try:
            yield proxy
        finally:
            proxy._loop.call_soon_threadsafe(down.set)
            thread.join()
            proxy._loop.close()

    @property
    def token(self) -> str:
        """The bearer token that the apiserver behind knows."""
        return self._plane.admin_token

    @property
    def ca_file(self) -> Path:
        """The certificate authority of the apiserver behind."""
        return self._plane.ca_file

    def open_door(self) -> str:
        """Open a door for the next life of the operator and return its URL."""
        return asyncio.run_coroutine_threadsafe(self._open(), self._loop).result(timeout=60)

    def quiet_for(self, seconds: float) -> bool:
        """Tell whether nothing has been written for so long."""
        return time.monotonic() - self._last > seconds

    async def _serve(self, up: threading.Event, down: asyncio.Event) -> None:
        trust = ssl.create_default_context(cafile=str(self._plane.ca_file))
        connector = aiohttp.TCPConnector(limit=0, ssl=trust)
        application = web.Application(client_max_size=64 << 20)
        application.router.add_route("*", "/{path:.*}", self._pass)
        self._runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.1, handler_cancellation=True)
        await self._runner.setup()
        async with aiohttp.ClientSession(
            connector=connector, auto_decompress=False, timeout=aiohttp.ClientTimeout(total=None)
        ) as self._session:
            up.set()
            await down.wait()
            await self._runner.cleanup()
        await asyncio.sleep(0.1)  # what was closed just now is let go in a later turn of the loop

    async def _open(self) -> str:
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        port = int(self._runner.addresses[-1][1])
        self._doors.add(port)
        return f"http://127.0.0.1:{port}"

    async def _pass(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        what = _what(request, body)
        if what is None:
            return await self._forward(request, body)
        async with self._turn:
            self._let_live(request)
            self._last = time.monotonic()
            self._seen[what] += 1
            nth = self._seen[what]
            await self._maybe_crash(request, CrashPoint(what, nth), "before")
            answer = await self._forward(request, body)
            self.writes.append(Write(what, nth, answer.status))
            await self._maybe_crash(request, CrashPoint(what, nth), "after")
            return answer

    async def _maybe_crash(self, request: web.Request, here: CrashPoint, moment: Moment) -> None:
        if here != self._crash or moment in self.kills:
            return
        self.kills.append(moment)
        self._doors.clear()
        if moment == "before":
            self._seen[here.what] -= 1  # it did not happen: the next life's is the nth
        await asyncio.to_thread(self.kill)
        self._let_live(request)

    def _let_live(self, request: web.Request) -> None:
        """Drop a request of a life that is over."""
        transport = request.transport
        if transport is None or transport.get_extra_info("sockname")[1] not in self._doors:
            if transport is not None:
                transport.abort()
            raise asyncio.CancelledError

    async def _forward(self, request: web.Request, body: bytes) -> web.StreamResponse:
        headers = {name: value for name, value in request.headers.items() if name.lower() not in _HOP}
        url = URL(self._plane.url + request.raw_path, encoded=True)
        async with self._session.request(
            request.method, url, data=body or None, headers=headers, allow_redirects=False
        ) as answer:
            kept = {name: value for name, value in answer.headers.items() if name.lower() not in _HOP}
            if request.query.get("watch") not in {"true", "1"}:
                return web.Response(status=answer.status, headers=kept, body=await answer.read())
            stream = web.StreamResponse(status=answer.status, headers=kept)
            transport = answer.connection.transport if answer.connection is not None else None
            try:
                with suppress(ConnectionError, aiohttp.ClientError):  # either end may leave a watch at any time
                    await stream.prepare(request)
                    async for chunk in answer.content.iter_any():
                        await stream.write(chunk)
            finally:
                if transport is not None:
                    transport.abort()  # closing in form would take until the apiserver has something to tell
            return stream


def _what(request: web.Request, body: bytes) -> str | None:
    """Return what a request writes, in words that are the same in every namespace and every run; None for a read."""
    verb = _WRITES.get(request.method)
    parts = request.path.partition("/namespaces/")[2].split("/")[1:]
    if verb is None or not parts or parts[0] in _NO_STATE:
        return None
    sent: Object | list[Object] = json.loads(body) if body else {}
    obj = sent if isinstance(sent, dict) else {}  # a JSON patch is a list, of an object that the path names
    name = parts[1] if len(parts) > 1 else obj["metadata"]["name"]
    plain = re.sub(r"-[0-9a-f]{10}(?=(-data)?$)|(?<=-lora)-[0-7]$", "", name)
    conditions = (obj.get("status") or {}).get("conditions") or []
    said = "".join(f" {one['reason']}" for one in conditions if one["type"] == "Ready")
    return f"{verb} {'/'.join([parts[0], plain, *parts[2:]])}{said}"
