"""The agent beside an engine that asks for a key, or hides what it has: told, and the pod is Ready within its bound."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

import hubserver
from lora_operator.protocol.door import State
from lora_operator.protocol.manifest import Entry
from support import agents, fake_engine
from support.adapters import make_adapter


@pytest.fixture
async def engine() -> AsyncIterator[fake_engine.Engine]:
    async with fake_engine.serve() as engine:
        yield engine


def entry(hub: hubserver.Hub) -> Entry:
    files = make_adapter()
    return agents.entry_for(files, agents.publish(hub, "acme/support", files))


async def test_an_engine_with_an_api_key_is_served_with_it_and_told_without(hub: hubserver.Hub, tmp_path: Path) -> None:
    agents.publish_base(hub)
    wanted = entry(hub)
    key = tmp_path / "key"
    key.write_text("secret-key\n")
    async with fake_engine.serve(api_key="secret-key") as engine:
        async with agents.running(tmp_path / "without", engine_url=engine.url, hub_url=hub.url) as pod:
            await pod.push(wanted)
            pending = await pod.reaches(wanted.engine_name, State.PENDING, reason="EngineUnauthorized")
            assert "VLLM_API_KEY" in pending.message
            assert "--api-key" in pending.message
        async with agents.running(
            tmp_path / "with", engine_url=engine.url, hub_url=hub.url, engine_api_key_file=key
        ) as pod:
            await pod.push(wanted)
            await pod.reaches(wanted.engine_name, State.LOADED)


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        pytest.param({"status": 401}, "EngineUnauthorized", id="a key that the agent can't have"),
        pytest.param({"status": 500}, "EngineNotReady", id="an error"),
    ],
)
async def test_an_engine_that_hides_its_models_keeps_its_pod_from_being_ready_for_the_bound_only(
    hub: hubserver.Hub, engine: fake_engine.Engine, tmp_path: Path, fault: dict[str, int], reason: str
) -> None:
    agents.publish_base(hub)
    wanted = entry(hub)
    engine.fault("/v1/models", times=-1, **fault)
    pod = agents.pod(tmp_path, engine_url=engine.url, hub_url=hub.url, ready_timeout_seconds=3)
    pod.mount_secret()
    for shard in pod.shards(wanted):
        pod.mount(shard)
    async with pod.run():
        assert not await pod.is_ready()
        await pod.reaches(wanted.engine_name, State.PENDING, reason=reason)
        await agents.eventually(pod.is_ready)
        engine.clear_faults()
        await pod.reaches(wanted.engine_name, State.LOADED)


@pytest.mark.parametrize("key", [b"secret-\xff", b"two\nlines"], ids=["not ASCII", "two lines"])
async def test_a_key_that_no_header_can_carry_does_not_stop_the_agent(
    hub: hubserver.Hub, tmp_path: Path, key: bytes
) -> None:
    agents.publish_base(hub)
    file = tmp_path / "key"
    file.write_bytes(key)
    async with (
        fake_engine.serve(api_key="secret-key") as engine,
        agents.running(tmp_path, engine_url=engine.url, hub_url=hub.url, engine_api_key_file=file) as pod,
    ):
        await agents.eventually(pod.is_ready)
