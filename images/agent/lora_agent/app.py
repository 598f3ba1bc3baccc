"""Puts the agent together and runs it: the loop, and the door once the loop has looked at the engine once.

`serve` is the whole agent as a context: the program runs one, tests run many in one process.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass

import aiohttp
from aiohttp import web

from lora_agent import hub
from lora_agent.certificate import ServerTls
from lora_agent.disk import Disk
from lora_agent.door import door
from lora_agent.fetch import Fetcher
from lora_agent.loop import Holder
from lora_agent.secret import Secret
from lora_agent.settings import Settings
from lora_agent.vllm import VLLM
from lora_operator.adapter import EngineLimits
from lora_operator.protocol.door import PORT


@dataclass(frozen=True, slots=True, kw_only=True)
class Agent:
    """An agent that runs."""

    holder: Holder
    port: int


@contextlib.asynccontextmanager
async def serve(settings: Settings, *, host: str | None = None, port: int = PORT) -> AsyncIterator[Agent]:
    """Run an agent while the context is open; `host` None is every address, `port` 0 a free one."""
    async with contextlib.AsyncExitStack() as stack:
        # The engine is on loopback: no proxy, and no connection kept that it may have closed.
        connector = aiohttp.TCPConnector(force_close=True)
        engine_session = await stack.enter_async_context(aiohttp.ClientSession(connector=connector))
        hub_session = await stack.enter_async_context(hub.session())
        disk = Disk(settings.adapters_path, budget=settings.adapters_size)
        secret = Secret(settings.secret_path)
        tls = ServerTls()
        tls.take(secret.certificate)
        holder = Holder(
            settings,
            engine=VLLM(engine_session, settings.engine_url, api_key_file=settings.engine_api_key_file),
            fetcher=Fetcher(
                hub=hub.Hub(session=hub_session, endpoint=settings.hub_endpoint), disk=disk, limits=_limits(settings)
            ),
            secret=secret,
            tls=tls,
        )
        # Before anybody can ask: what is told after a restart of the agent is what the engine has, not a blank.
        # What there is to do comes after: a pod that was Ready is not kept waiting by a load.
        await holder.look_round()
        runner = web.AppRunner(door(holder, secret), access_log=None, shutdown_timeout=1)
        await runner.setup()
        stack.push_async_callback(runner.cleanup)
        await web.TCPSite(runner, host, port, ssl_context=tls.context).start()
        loop = asyncio.create_task(holder.run())
        stack.push_async_callback(_stop, loop)
        yield Agent(holder=holder, port=int(runner.addresses[0][1]))


async def _stop(task: asyncio.Task[None]) -> None:
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


def _limits(settings: Settings) -> EngineLimits:
    device = settings.engine_device
    return EngineLimits(
        max_lora_rank=settings.max_lora_rank,
        device="cpu" if device == "cpu" else "cuda" if device == "cuda" else None,
        dtype=settings.engine_dtype,
        lora_dtype=settings.lora_dtype,
        target_modules=settings.lora_target_modules,
    )
