"""A base of an architecture that the adapter library doesn't know: operator and agent judge by its headers alone."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from typing import Any, cast

import pytest

import hubserver
from lora_operator.adapter import Base, base_from_shapes
from lora_operator.clients.bases import Bases
from lora_operator.clients.hub import Hub, Place
from lora_operator.header_reading import read_shapes
from lora_operator.lora_adapter.refusal import NotServableError
from lora_operator.lora_adapter.resolve import resolve
from lora_operator.protocol.door import State
from support import agents, fake_engine
from support.adapter_passes import adopted_engine, observed
from support.adapters import TINY_LLAMA, base_files, make_adapter, other_base
from support.agents import Pod
from support.memory_world import make_world
from support.objects import BASE
from support.objects import make_adapter as make_object

STRANGE = replace(TINY_LLAMA, model_type="strange")
SHARDS = 3
REPO = "acme/strange"


def files_asked_for(hub: hubserver.Hub) -> list[str]:
    """Return the names of the files that were read, once a request that was answered with bytes."""
    return [one.path.rsplit("/", 1)[-1] for one in hub.requests if one.method == "GET" and "/resolve/" in one.path]


async def test_a_base_is_read_once_a_commit_whoever_asks(hub: hubserver.Hub) -> None:
    files = base_files(STRANGE, shards=SHARDS)
    hub.add_model(REPO, files)
    bases, client = Bases(), Hub(hub.url)

    found = await asyncio.gather(*(bases.read(client, Place(REPO), token=None) for _ in range(5)))

    assert all(one is found[0] for one in found)
    assert found[0].shapes is not None
    assert found[0].shapes.modules["model.layers.1.mlp.up_proj"] == TINY_LLAMA.of("up_proj")
    assert sorted(files_asked_for(hub)) == sorted(files)
    sent = sum(one.sent_bytes for one in hub.requests if ".safetensors" in one.path)
    assert sent <= SHARDS * 64 * 1024

    hub.add_model(REPO, {"README.md": b"another commit"})
    assert await bases.read(client, Place(REPO), token=None) is not found[0]
    assert len(files_asked_for(hub)) == 2 * len(files)


async def test_no_more_is_read_of_a_base_than_is_allowed(hub: hubserver.Hub) -> None:
    hub.add_model(REPO, base_files(STRANGE, shards=8))
    hub.add_model("acme/llama", base_files(shards=8))
    client, limit = Hub(hub.url), 3 * 64 * 1024

    async def shapes_of(repo: str) -> Base | None:
        snapshot = await client.resolve(Place(repo), token=None)
        config = json.loads(await client.read(Place(repo), "config.json", token=None, limit=10_000))

        async def read(name: str, start: int, stop: int) -> bytes:
            return await client.read(Place(repo), name, token=None, span=(start, stop - 1), limit=stop - start)

        sizes = {file.path: file.size for file in snapshot.files}
        return await read_shapes(read, sizes, config, limit=limit)

    assert await shapes_of(REPO) is None
    assert await shapes_of("acme/llama") is not None, "the config tells the shapes of a known family"
    assert len([name for name in files_asked_for(hub) if name.endswith(".safetensors")]) <= 6


async def test_the_operator_judges_by_the_base_s_headers_before_any_agent_has_told_of_it(hub: hubserver.Hub) -> None:
    hub.add_model(BASE, base_files(STRANGE))
    hub.add_model("acme/support", make_adapter().files)
    hub.add_model("acme/narrow", make_adapter(base=other_base()).files)
    world = make_world(hub=cast("Any", Hub(hub.url))).world

    entry = await resolve(observed(make_object()), world)

    assert entry.digest == make_adapter().digest
    narrow = make_object(source={"hub": {"repo": "acme/narrow"}})
    with pytest.raises(NotServableError) as refused:
        await resolve(observed(narrow, engine=adopted_engine()), world)
    assert (refused.value.reason, refused.value.unknown) == ("ShapeMismatch", False)


async def test_the_agent_reads_them_too_and_tells_the_operator(
    hub: hubserver.Hub, pod: Pod, engine: fake_engine.Engine
) -> None:
    hub.add_model(agents.BASE, base_files(STRANGE))
    good = agents.published_entry(hub, make_adapter(), name="good")
    narrow = agents.published_entry(hub, make_adapter(base=other_base()), name="narrow")
    async with pod.run():
        await pod.push(good, narrow)
        await pod.reaches(good.engine_name, State.LOADED)
        assert (await pod.reaches(narrow.engine_name, State.FAILED)).reason == "ShapeMismatch"
        status, text = await pod.call("GET", "/v1/base")
    assert status == 200
    told = json.loads(text)
    base = base_from_shapes(told["shapes"], told["config"])
    assert base is not None
    assert base.modules["model.layers.0.self_attn.k_proj"] == TINY_LLAMA.of("k_proj")
    assert [call["lora_name"] for call in engine.calls("/v1/load_lora_adapter")] == [good.engine_name]
