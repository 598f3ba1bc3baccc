"""The operator's own ports: /metrics, /healthz and /readyz in plain HTTP, and trainers' progress in HTTPS."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def health_application(*, ready: Callable[[], bool], alive: Callable[[], bool]) -> web.Application:
    """Return the application that kubelet and Prometheus ask."""

    async def metrics(_: web.Request) -> web.Response:
        return web.Response(body=generate_latest(), headers={"Content-Type": CONTENT_TYPE_LATEST})

    def answer(holds: Callable[[], bool]) -> Handler:
        async def probe(_: web.Request) -> web.Response:
            return web.Response(text="ok") if holds() else web.Response(status=503, text="not yet")

        return probe

    application = web.Application()
    application.add_routes(
        [
            web.get("/metrics", metrics),
            web.get("/healthz", answer(alive)),
            web.get("/readyz", answer(ready)),
        ]
    )
    return application


@asynccontextmanager
async def listening(
    application: web.Application, *, port: int, tls: ssl.SSLContext | None = None
) -> AsyncIterator[None]:
    """Serve an application on all addresses of the pod for as long as the context is open."""
    runner = web.AppRunner(application, access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, port=port, ssl_context=tls).start()
        yield
    finally:
        await runner.cleanup()
