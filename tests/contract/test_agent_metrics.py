"""What the agent takes from an engine's metrics, over the wire: only what it has seen whole lets files be removed."""

from __future__ import annotations

from typing import Final

import aiohttp
from aiohttp import web
from aiohttp.test_utils import TestServer

from lora_agent.vllm import VLLM

IDLE: Final = b'vllm:num_requests_running{engine="0"} 0.0\nvllm:num_requests_waiting{engine="0"} 0.0\n'
ASKED: Final = b'vllm:lora_requests_info{running_lora_adapters="a",waiting_lora_adapters="b"} 1.8e9\n'
BUSY: Final = b'vllm:num_requests_running{engine="1"} 1.0\n' + ASKED
MEBIBYTE: Final = b"# " + b"x" * (2**20 - 3) + b"\n"


async def busy(*chunks: bytes, status: int = 200) -> frozenset[str] | None:
    """Return which adapters an engine with these metrics is taken to be busy with."""

    async def metrics(request: web.Request) -> web.StreamResponse:
        answer = web.StreamResponse(status=status)
        await answer.prepare(request)
        for chunk in chunks:
            await answer.write(chunk)
        return answer

    app = web.Application()
    app.add_routes([web.get("/metrics", metrics)])
    async with TestServer(app) as server, aiohttp.ClientSession() as session:
        return await VLLM(session, str(server.make_url("/"))).busy()


async def test_an_engine_that_says_that_it_is_idle_is_idle() -> None:
    assert await busy(IDLE, ASKED) == frozenset()


async def test_a_line_may_come_in_pieces() -> None:
    assert await busy(IDLE[:20], IDLE[20:] + BUSY[:60], BUSY[60:]) == {"a", "b"}


async def test_metrics_that_outgrow_the_limit_tell_nothing() -> None:
    assert await busy(IDLE, *[MEBIBYTE] * 33, BUSY) is None


async def test_metrics_that_end_within_a_line_tell_nothing() -> None:
    assert await busy(IDLE, BUSY[:-5]) is None


async def test_a_value_that_is_no_number_tells_nothing() -> None:
    assert await busy(b"vllm:num_requests_running many\n", ASKED) is None


async def test_metrics_that_are_refused_tell_nothing() -> None:
    assert await busy(IDLE, status=404) is None
