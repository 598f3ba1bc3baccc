"""The LoRAEngine pass: observe -> plan -> apply -> status; deletion is another plan in the same pass."""

from __future__ import annotations

from typing import Final

from lora_operator import conditions
from lora_operator.api import LoRAEngine
from lora_operator.api.lora_engine import EngineCondition, EngineStatus
from lora_operator.labels import Key, is_suspended
from lora_operator.loop import soonest
from lora_operator.lora_engine.apply import execute
from lora_operator.lora_engine.leave import leave
from lora_operator.lora_engine.observe import observe
from lora_operator.lora_engine.observed import Observed
from lora_operator.lora_engine.plan import REFUSED_AGAIN_SECONDS, plan
from lora_operator.lora_engine.status import next_status
from lora_operator.world import World

OPEN_NOTE: Final = (
    "Adapters can now be loaded and unloaded by whoever reaches the engine's port: docs/operations.md has a"
    " NetworkPolicy to copy"
)


async def reconcile(key: Key, world: World) -> float | None:
    """Bring one LoRAEngine forward; return the seconds after which to come again, if any."""
    obj = world.store.get(key)
    if obj is None:
        world.reporter.forget(key)
        world.bases.pop(key, None)
        world.access.pop(key, None)
        return None
    engine = LoRAEngine.model_validate(obj)
    if not engine.deleting and is_suspended(obj):
        return None
    observed = await observe(engine, obj, world)
    if engine.deleting:
        return await leave(observed, world)
    todo = plan(observed, now=world.now())
    rejected = await execute(todo, observed, world)
    status = next_status(observed, todo, rejected, now=world.now())
    again = await world.reporter.report(obj, status)
    await _tell_adoption(observed, status, world)
    return soonest(todo.after, REFUSED_AGAIN_SECONDS if rejected else None, again)


async def _tell_adoption(observed: Observed, status: EngineStatus, world: World) -> None:
    """Say once, at adoption, what it opens."""
    before = observed.engine.status.conditions if observed.engine.status else ()
    if conditions.is_true(before, EngineCondition.ADOPTED):
        return
    if conditions.is_true(status.conditions, EngineCondition.ADOPTED):
        await world.recorder.say(observed.obj, "Normal", "RuntimeLoadingOpen", OPEN_NOTE)
