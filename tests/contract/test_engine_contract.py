"""The fake engine keeps the contract that the real vLLM is held to in tests/e2e."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest

from support import engine_contract, fake_engine
from support.adapters import make_adapter
from support.engine_contract import Bench


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    async with fake_engine.serve() as engine, aiohttp.ClientSession() as session:
        yield Bench(session=session, url=engine.url, folder=tmp_path)


@pytest.mark.parametrize("check", engine_contract.CHECKS, ids=engine_contract.name_of)
async def test_the_fake_engine_answers_as_vllm_does(check: engine_contract.Check, bench: Bench) -> None:
    await check(bench)


async def test_a_fake_engine_forgets_its_adapters_when_it_restarts(tmp_path: Path) -> None:
    async with fake_engine.serve() as engine, aiohttp.ClientSession() as session:
        bench = Bench(session=session, url=engine.url, folder=tmp_path)
        await bench.load("a", bench.adapter())
        await engine.restart()
        assert set(await bench.models()) == {"base"}


async def test_a_fake_engine_dies_when_files_vanish_under_an_adapter(tmp_path: Path) -> None:
    async with fake_engine.serve() as engine, aiohttp.ClientSession() as session:
        bench = Bench(session=session, url=engine.url, folder=tmp_path)
        path = bench.adapter(make_adapter())
        await bench.load("a", path)
        (path / "adapter_config.json").unlink()
        assert (await bench.complete("a"))[0] == 500
        await engine.died()
        with pytest.raises(aiohttp.ClientConnectorError):
            await bench.models()
