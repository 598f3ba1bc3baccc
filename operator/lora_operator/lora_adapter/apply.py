"""What the LoRAAdapter pass does to the world: its finaliser, and the word it leaves for the engine's pass."""

from __future__ import annotations

from lora_operator.finalizing import with_finalizer, without_finalizer
from lora_operator.labels import FINALIZER_MANAGER, Key
from lora_operator.lora_adapter.observed import Observed
from lora_operator.protocol.manifest import Entry
from lora_operator.store import engine_of_adapter
from lora_operator.world import World


def want(key: Key, entries: tuple[Entry, ...], world: World) -> None:
    """Say which entries the manifest is to hold; wake the engine's pass where that is news."""
    if world.wanted.get(key) == entries:
        return
    world.wanted[key] = entries
    if (adapter := world.store.get(key)) is not None:
        for engine in engine_of_adapter(adapter):
            world.wake(engine)


async def add_finalizer(observed: Observed, world: World) -> None:
    """Hold on to the object before the first effect outside of it."""
    if (body := with_finalizer(observed.obj)) is not None:
        await world.kube.apply(body, manager=FINALIZER_MANAGER)


async def remove_finalizer(observed: Observed, world: World) -> None:
    """Let go of the object: nothing of it is left, or nobody can be asked any more."""
    if (operations := without_finalizer(observed.obj)) is not None:
        await world.kube.patch(observed.obj, operations)


async def say_left_behind(observed: Observed, places: list[str], world: World) -> None:
    """Tell what the deletion did not reach in its time."""
    note = f"deleted, though it was still in {', '.join(places[:10])}; each agent unloads it when it is reached again"
    await world.recorder.say(observed.obj, "Warning", "CleanupTimedOut", note)


def forget(key: Key, world: World) -> None:
    """Drop what the blackboards still have of an object that is gone."""
    for board in (world.wanted, world.refusals, world.resolved, world.gaps):
        board.pop(key, None)
    world.reporter.forget(key)
