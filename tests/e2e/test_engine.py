"""The real vLLM: it keeps the contract that the fake engine is held to, and the agent holds adapters in it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import aiohttp
import pytest

import hubserver
from lora_agent.vllm import busy_adapters
from lora_operator.protocol.door import State
from support import agents, engine_contract, real_engine
from support.adapters import AdapterFiles, make_adapter
from support.engine_contract import Bench
from support.real_engine import RealEngine

# Starting a vLLM takes a minute or more on a busy machine.
pytestmark = pytest.mark.timeout(1200)


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealEngine]:
    with real_engine.running(tmp_path_factory.mktemp("vllm")) as engine:
        yield engine


@pytest.fixture
async def bench(engine: RealEngine, tmp_path: Path) -> AsyncIterator[Bench]:
    async with aiohttp.ClientSession() as session:
        yield Bench(session=session, url=engine.url, folder=tmp_path)


@pytest.fixture
def hub(engine: RealEngine) -> Iterator[hubserver.Hub]:
    with hubserver.running() as hub:
        hub.add_model(agents.BASE, {"config.json": (engine.model / "config.json").read_bytes()})
        yield hub


def strong(*, seed: int = 0) -> AdapterFiles:
    """Return an adapter whose answers can't be taken for the base's."""
    targets = ("q_proj", "v_proj", "o_proj", "down_proj")
    return make_adapter(seed=seed, targets=targets, config={"lora_alpha": 512})


@pytest.mark.parametrize("check", engine_contract.CHECKS, ids=engine_contract.name_of)
async def test_vllm_answers_as_the_contract_says(check: engine_contract.Check, bench: Bench) -> None:
    await check(bench)


async def test_vllm_tells_which_adapter_is_being_asked(bench: Bench) -> None:
    name = engine_contract.unique()
    await bench.load(name, bench.adapter())
    asking = asyncio.create_task(_long_request(bench, name))
    await _until_told(bench, name, asking)
    assert await asking == 200
    await bench.unload(name)


async def test_the_agent_serves_heals_a_killed_engine_and_clears_up(
    engine: RealEngine, bench: Bench, hub: hubserver.Hub, tmp_path: Path
) -> None:
    good, bad = strong(), make_adapter(seed=5).spoilt(nan=True)
    entry = agents.entry_for(good, agents.publish(hub, "acme/good", good), name="good")
    refused = agents.entry_for(bad, agents.publish(hub, "acme/bad", bad), name="bad")
    base_answer = await bench.complete("base")
    async with agents.running(tmp_path / "pod", engine_url=engine.url, hub_url=hub.url, drain_seconds=1) as pod:
        await pod.push(entry, refused)
        await pod.reaches(entry.engine_name, State.LOADED)
        assert (await pod.reaches(refused.engine_name, State.FAILED)).reason == "NotFinite"
        answer = await bench.complete(entry.engine_name)
        assert _text(answer) != _text(base_answer)

        engine.kill()
        await pod.until(lambda report: not report.engine.healthy and not report.ready)
        hub.fault(".*", status=503, times=-1)
        await asyncio.to_thread(engine.start)
        await pod.until(lambda report: report.ready and report.engine.healthy)
        await pod.reaches(entry.engine_name, State.LOADED)
        assert _text(await bench.complete(entry.engine_name)) == _text(answer)

        path = pod.volume / entry.digest.removeprefix("sha256:")
        asking = asyncio.create_task(_long_request(bench, entry.engine_name))
        await _until_told(bench, entry.engine_name, asking)
        await pod.push()
        await pod.gone(entry.engine_name)
        assert await asking == 200
        assert not path.exists()
        assert set(await bench.models()) == {"base"}
        assert _text(await bench.complete("base")) == _text(base_answer)


async def _until_told(bench: Bench, name: str, asking: asyncio.Task[int]) -> None:
    async with asyncio.timeout(120):
        while busy_adapters((await bench.call("GET", "/metrics"))[1]) != frozenset({name}):
            assert not asking.done(), "the request ended before the metrics told of it"


async def _long_request(bench: Bench, model: str) -> int:
    body = {"model": model, "prompt": "def", "max_tokens": 240, "temperature": 0, "ignore_eos": True}
    return (await bench.call("POST", "/v1/completions", json=body))[0]


def _text(answer: tuple[int, str]) -> str:
    status, text = answer
    assert status == 200, text
    return str(json.loads(text)["choices"][0]["text"])
