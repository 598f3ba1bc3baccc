"""The Pod pass: what an agent says, taken in."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace
from typing import Any, cast

import pytest

from lora_operator.clients.door import Access, Doors
from lora_operator.engine_pod import reconcile
from lora_operator.labels import Key
from lora_operator.protocol.door import Base, EngineReport, EntryReport, Report, State
from lora_operator.world import World
from support.adapter_passes import adopted_engine
from support.memory_world import make_world
from support.objects import BASE, NAMESPACE, make_adapter, make_entry, make_pod

ENGINE = Key("LoRAEngine", NAMESPACE, "llama")
POD = Key("Pod", NAMESPACE, "vllm-llama-0")
ADAPTER = Key("LoRAAdapter", NAMESPACE, "support")


@dataclass
class Speaking:
    """An agent that says this of its engine's base and adapters."""

    base_name: str = BASE
    entries: tuple[EntryReport, ...] = ()

    async def report(self, *_: Any, **__: Any) -> Report:
        """Say it at once."""
        engine = EngineReport(healthy=True)
        return Report(instance="i", sequence=1, agent_version="1", engine=engine, entries=self.entries, base_known=True)

    async def base(self, *_: Any) -> Base:
        """Return the base."""
        return Base(name=self.base_name, config={})


@dataclass
class Passing:
    """A world with an engine, its pod and an adapter, and the passes that were woken."""

    world: World
    woken: list[Key]

    async def hear(self, agent: Speaking) -> None:
        """Run one pass in which the agent says this."""
        self.woken.clear()
        world = replace(self.world, doors=cast("Doors", agent))
        world.access[ENGINE] = Access("certificate", "token")
        assert await reconcile(POD, world, asyncio.Event()) == 0.0


@pytest.fixture
def passing() -> Passing:
    """Return them."""
    made = make_world()
    for obj in (adopted_engine(), make_pod(), make_adapter()):
        made.kube.put(obj)
    return Passing(made.world, made.woken)


async def test_the_base_is_read_anew_when_the_engine_serves_another(passing: Passing) -> None:
    await passing.hear(Speaking())
    assert passing.world.bases[ENGINE].name == BASE
    engine = passing.world.store.get(ENGINE) or {}
    engine["status"]["baseModel"] = "acme/other"

    await passing.hear(Speaking())
    assert passing.world.bases[ENGINE].name == BASE, "a pod of before the change tells nothing new"
    await passing.hear(Speaking("acme/other"))

    assert passing.world.bases[ENGINE].name == "acme/other"
    assert ADAPTER in passing.woken


async def test_an_adapter_that_somebody_loaded_by_hand_hides_no_other(passing: Passing) -> None:
    by_hand = EntryReport(engine_name="by-hand", state=State.LOADED)
    ours = EntryReport(engine_name=make_entry().engine_name, state=State.LOADED)

    await passing.hear(Speaking(entries=(by_hand, ours)))

    assert {ADAPTER, ENGINE} <= set(passing.woken)
