"""The LoRATrainingJob pass: observe, check before a GPU is asked for, train, read the result, tell how far it is."""

from __future__ import annotations

from lora_operator.labels import Key
from lora_operator.world import World


async def reconcile(key: Key, world: World) -> float | None:
    """Run one pass; return the seconds after which to run again, or None."""
    if world.store.get(key) is None:
        world.progress.pop(key, None)
        world.reporter.forget(key)
    return None
