"""The agent's door: the routes of `lora_operator.protocol.door`. The operator pushes and asks; kubelet probes."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from typing import Final

from aiohttp import web

from lora_agent.loop import Holder
from lora_agent.secret import Secret
from lora_operator.protocol.manifest import SHARDS, Wire, read_shard

LONGEST_WAIT_SECONDS: Final = 60.0
_BODY_LIMIT: Final = 4 * 1024 * 1024
_BEARER: Final = re.compile(r"^Bearer (\S+)$")
_Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def door(holder: Holder, secret: Secret) -> web.Application:
    """Return the application that serves the door."""

    @web.middleware
    async def admit(request: web.Request, handler: _Handler) -> web.StreamResponse:
        if request.path.startswith("/v1/"):
            given = _BEARER.match(request.headers.get("Authorization", ""))
            if given is None or not secret.admits(given[1]):
                raise web.HTTPUnauthorized(text="the door's token is needed")
        return await handler(request)

    app = web.Application(middlewares=[admit], client_max_size=_BODY_LIMIT)
    routes = _Routes(holder)
    app.add_routes(
        [
            web.put("/v1/shards/{index}", routes.put_shard),
            web.get("/v1/report", routes.get_report),
            web.get("/v1/base", routes.get_base),
            web.get("/readyz", routes.readyz),
            web.get("/healthz", routes.healthz),
        ]
    )
    return app


class _Routes:
    def __init__(self, holder: Holder) -> None:
        self._holder = holder

    async def put_shard(self, request: web.Request) -> web.Response:
        """Take a shard; one that is not newer is taken as read."""
        index = request.match_info["index"]
        shard = read_shard(await request.read())
        if shard is None or index != str(shard.index):
            raise web.HTTPBadRequest(text=f"no readable shard of index {index[:8]!r}, which is below {SHARDS}")
        self._holder.push(shard)
        return web.Response(status=204)

    async def get_report(self, request: web.Request) -> web.Response:
        """Answer with the newest report, at once where it is newer than the caller's, or of another process."""
        try:
            after = int(request.query.get("after", "0"))
            wait = float(request.query.get("wait", "0"))
        except ValueError as error:
            raise web.HTTPBadRequest(text="after and wait are numbers") from error
        # The bound on readiness passes without anything happening: looked at when asked.
        self._holder.refresh()
        same = request.query.get("instance") == self._holder.board.report.instance
        wait_seconds = min(max(wait, 0.0), LONGEST_WAIT_SECONDS) if same else 0.0
        heard = request.query.get("instance", "")
        return _json(await self._holder.board.newer(instance=heard, after=after, wait_seconds=wait_seconds))

    async def get_base(self, _: web.Request) -> web.Response:
        """Answer with what is known of the base."""
        base = self._holder.work.base
        if base is None:
            raise web.HTTPNotFound(text="the base is not known yet")
        return _json(base.wire)

    async def readyz(self, _: web.Request) -> web.Response:
        """Tell kubelet whether the pod's adapters are there."""
        self._holder.refresh()
        report = self._holder.board.report
        text = "ready" if report.ready else "not ready: waiting for the engine or its adapters"
        return web.Response(status=200 if report.ready else 503, text=text)

    async def healthz(self, _: web.Request) -> web.Response:
        """Tell kubelet that the process answers."""
        return web.Response(text="ok")


def _json(value: Wire) -> web.Response:
    return web.Response(text=value.model_dump_json(by_alias=True), content_type="application/json")
