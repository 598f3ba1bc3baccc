"""The Pod pass: push what the agent lacks, wait for what it says next, wake whom it concerns. Runs as long as the pod.

A pod that hangs holds up only itself: every call has a time limit, and no other pass waits for this one.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Final

from lora_operator.clients.door import DoorError
from lora_operator.engine_pod.observe import Observed, observe
from lora_operator.engine_pod.plan import adapter_of, engine_names_changed, shards_to_push
from lora_operator.labels import ENGINE, Key
from lora_operator.protocol.door import Report
from lora_operator.world import SILENCE_SECONDS, World

logger = logging.getLogger(__name__)

RETRY_SECONDS: Final = 3.0


async def reconcile(key: Key, world: World, woken: asyncio.Event) -> float | None:
    """Run one exchange with the pod's agent; `woken` ends the waiting part early."""
    observed = await observe(key, world)
    if observed is None:
        _hear(key, None, world)
        world.silent.pop(key, None)
        return None if world.store.get(key) is None else RETRY_SECONDS * 10
    try:
        for shard in shards_to_push(observed.shards, observed.heard):
            await world.doors.push(observed.address, observed.access, shard)
        report = await _next_report(observed, world, woken)
        if report is not None and report.base_known and _lacks_base(observed.engine, world):
            await _read_base(observed, world)
    except DoorError as error:
        return _silent(key, observed.engine, world, error)
    world.silent.pop(key, None)
    if report is not None:
        _hear(key, report, world)
    return 0.0


async def _next_report(observed: Observed, world: World, woken: asyncio.Event) -> Report | None:
    """Wait for a newer report; None where the pass was woken first, for there may be something new to push."""
    poll = asyncio.create_task(world.doors.report(observed.address, observed.access, heard=observed.heard))
    waker = asyncio.create_task(woken.wait())
    try:
        await asyncio.wait({poll, waker}, return_when=asyncio.FIRST_COMPLETED)
        return poll.result() if poll.done() else None
    finally:
        for task in (poll, waker):
            task.cancel()
        await asyncio.gather(poll, waker, return_exceptions=True)


def _base_name(engine: Key, world: World) -> str | None:
    """Return the base that the engine serves, by its own pass; None before that has read it."""
    name: str | None = ((world.store.get(engine) or {}).get("status") or {}).get("baseModel")
    return name


def _lacks_base(engine: Key, world: World) -> bool:
    known, name = world.bases.get(engine), _base_name(engine, world)
    return known is None or (name is not None and known.name != name)


async def _read_base(observed: Observed, world: World) -> None:
    base = await world.doors.base(observed.address, observed.access)
    name = _base_name(observed.engine, world)
    if name is not None and base.name != name:  # a pod of before a change of --model
        return
    world.bases[observed.engine] = base
    for adapter in world.store.referring("LoRAAdapter", "engine", observed.engine):
        world.wake(Key("LoRAAdapter", adapter["metadata"]["namespace"], adapter["metadata"]["name"]))


def _hear(key: Key, report: Report | None, world: World) -> None:
    """Take in what the agent said, or that it says nothing any more; wake the passes that it matters to."""
    before = world.reports.pop(key, None)
    if report is not None:
        world.reports[key] = report
    changed = engine_names_changed(before, report)
    for name in changed:
        if (adapter := adapter_of(name)) is not None:
            world.wake(adapter)
    pod = world.store.get(key)
    engine = (pod or {}).get("metadata", {}).get("labels", {}).get(ENGINE)
    if before != report and engine:
        world.wake(Key("LoRAEngine", key.namespace, engine))


def _silent(key: Key, engine: Key, world: World, error: DoorError) -> float:
    """Take note that the agent did not answer: its door may have a new key, and its last words grow old."""
    now = world.now()
    since = world.silent.setdefault(key, now)
    world.access.pop(engine, None)
    if since == now:
        logger.info("an agent does not answer: %s", error, extra={"key": str(key)})
    if (now - since).total_seconds() > SILENCE_SECONDS:
        _hear(key, None, world)
    return RETRY_SECONDS
