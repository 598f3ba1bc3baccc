"""The LoRAAdapter pass where an agent lacks the token that the pinned source asks for."""

from __future__ import annotations

import base64
from typing import Any

import pytest

from lora_operator.api import LoRAEngine
from lora_operator.errors import Blocked
from lora_operator.labels import Key
from lora_operator.lora_adapter import reconcile
from lora_operator.lora_engine.manifests import shard_object
from lora_operator.protocol.door import EngineReport, EntryReport, Report, State, credential_key
from lora_operator.protocol.manifest import Shard
from support.adapter_passes import adopted_engine, told
from support.memory_world import TrainingWorld, make_world
from support.objects import NAMESPACE, make_adapter, make_entry, make_pod

ADAPTER = Key("LoRAAdapter", NAMESPACE, "support")
ENGINE = Key("LoRAEngine", NAMESPACE, "llama")
POD = Key("Pod", NAMESPACE, "vllm-llama-0")
CREDENTIAL = credential_key(NAMESPACE, "hf", "token")


@pytest.fixture
def world() -> TrainingWorld:
    """Return a world in which a pinned adapter waits for its token on the only pod."""
    world = make_world()
    source = {"hub": {"repo": "acme/support", "tokenSecretRef": {"name": "hf", "key": "token"}}}
    entry = make_entry(credential=CREDENTIAL)
    shard = Shard(index=0, revision=1, entries=(entry,))
    engine = LoRAEngine.model_validate(adopted_engine())
    for obj in (make_adapter(source=source), adopted_engine(), make_pod(), shard_object(engine, shard)):
        world.kube.put(obj)
    waiting = told(entry, State.WAITING_FOR_CREDENTIALS, State.WAITING_FOR_CREDENTIALS.value)
    world.world.reports[POD] = report(waiting)
    return world


def report(entry: EntryReport) -> Report:
    """Return what the pod's agent says when it has one version to tell of."""
    engine = EngineReport(healthy=True)
    return Report(sequence=1, instance="i", agent_version="1", engine=engine, entries=(entry,))


def secret(token: str) -> dict[str, Any]:
    """Return the tenant's Secret."""
    data = {"token": base64.b64encode(token.encode()).decode()}
    metadata = {"name": "hf", "namespace": NAMESPACE}
    return {"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "data": data}


def ready(world: TrainingWorld) -> tuple[str, str, str]:
    """Return what the adapter's Ready condition says."""
    conditions = world.kube.objects[ADAPTER]["status"]["conditions"]
    found = next(condition for condition in conditions if condition["type"] == "Ready")
    return found["status"], found["reason"], found["message"]


async def test_a_secret_that_is_gone_is_told(world: TrainingWorld) -> None:
    again = await reconcile(ADAPTER, world.world)

    status, reason, message = ready(world)
    assert (status, reason) == ("False", "TokenSecretNotFound")
    assert "spec.source.hub.tokenSecretRef names Secret hf" in message
    assert again is not None


async def test_a_token_that_no_header_can_carry_is_refused_by_its_field_and_its_secret(world: TrainingWorld) -> None:
    world.kube.put(secret("hf_caf\N{LATIN SMALL LETTER E WITH ACUTE}"))

    await reconcile(ADAPTER, world.world)

    status, reason, message = ready(world)
    assert (status, reason) == ("False", "TokenMalformed")
    assert "spec.source.hub.tokenSecretRef" in message
    assert "Secret hf" in message
    assert "hf_caf" not in message


async def test_a_secret_that_is_back_is_handed_on(world: TrainingWorld) -> None:
    await reconcile(ADAPTER, world.world)
    world.kube.put(secret("hf_new"))

    await reconcile(ADAPTER, world.world)

    assert world.world.credentials[CREDENTIAL] == "hf_new"
    assert ENGINE in world.woken
    assert ready(world)[1] == "WaitingForCredentials"


async def test_a_newer_version_that_is_refused_is_told_once_and_the_pin_serves_on(world: TrainingWorld) -> None:
    source = {"hub": {"repo": "acme/support", "poll": {"mode": "Interval", "intervalSeconds": 600}}}
    world.kube.put(make_adapter(source=source))
    world.world.reports[POD] = report(told(make_entry(credential=CREDENTIAL), State.LOADED))
    world.hub.refusals["acme/support"] = Blocked("HubUnauthorized", "the Hub refuses the token: set tokenSecretRef")
    world.clock.pass_by(10)
    assert await reconcile(ADAPTER, world.world) == 590, "a start is no reason to look"
    assert world.hub.asked == []

    world.clock.pass_by(590)
    for _ in range(3):
        again = await reconcile(ADAPTER, world.world)

    assert world.hub.asked == ["acme/support"]
    assert again == 600
    conditions = {one["type"]: one for one in world.kube.objects[ADAPTER]["status"]["conditions"]}
    assert ready(world)[:2] == ("True", "Loaded")
    assert conditions["Resolved"]["reason"] == "HubUnauthorized"
    assert "set tokenSecretRef" in conditions["Resolved"]["message"]
    assert "goes on serving" in conditions["Resolved"]["message"]
    events = [obj for key, obj in world.kube.objects.items() if key.kind == "Event"]
    assert [event["type"] for event in events if event["reason"] == "HubUnauthorized"] == ["Warning"]


async def test_nobody_asks_for_a_token_that_no_agent_lacks(world: TrainingWorld) -> None:
    loaded = told(make_entry(credential=CREDENTIAL), State.LOADED)
    world.world.reports[POD] = report(loaded)

    await reconcile(ADAPTER, world.world)

    assert ready(world)[:2] == ("True", "Loaded")


async def test_an_engine_that_is_gone_is_gone_to_every_start_of_the_operator(world: TrainingWorld) -> None:
    loaded = told(make_entry(credential=CREDENTIAL), State.LOADED)
    world.world.reports[POD] = report(loaded)
    await reconcile(ADAPTER, world.world)
    served = world.kube.objects[ADAPTER]["status"]["current"]
    for key in [key for key in world.kube.objects if key.kind in {"LoRAEngine", "ConfigMap", "Pod"}]:
        world.kube.drop(key)

    for start in (world, world.restarted()):
        for _ in range(2):
            await reconcile(ADAPTER, start.world)
        assert ready(start)[:2] == ("False", "EngineGone")
        assert "goes on serving" not in ready(start)[2]
        assert start.kube.objects[ADAPTER]["status"]["current"] == served
