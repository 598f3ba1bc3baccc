"""Leaving: what a LoRAEngine's deletion gives back, in an order in which nobody loses what still serves.

    adapters unloaded -> our fields given up (one rollout) -> ConfigMaps and Secret deleted -> finaliser off

Each step is tried until the bound; then the finaliser goes all the same, and an Event lists what was left.
"""

from __future__ import annotations

from collections.abc import Awaitable
from datetime import timedelta
from typing import Final

from kubernetes.aio.client.exceptions import ApiException

from lora_operator.errors import ChangedError, FieldConflictError
from lora_operator.finalizing import without_finalizer
from lora_operator.labels import key_of
from lora_operator.lora_engine.apply import write_shards
from lora_operator.lora_engine.manifests import release_patch
from lora_operator.lora_engine.observed import Observed
from lora_operator.lora_engine.ownership import is_ours, lies_beside
from lora_operator.lora_engine.shards import Manifest, plan_manifest
from lora_operator.lora_engine.status import leaving_status
from lora_operator.lora_engine.workload import holder_of
from lora_operator.world import World

AGAIN_SECONDS: Final = 2.0


async def leave(observed: Observed, world: World) -> float | None:
    """Take the next steps of leaving; return the seconds after which to come again, None when it is done."""
    engine = observed.engine
    released = without_finalizer(observed.obj)
    if released is None or engine.metadata.deletion_timestamp is None:
        return None
    deadline = engine.metadata.deletion_timestamp + timedelta(seconds=world.settings.cleanup_seconds)
    over = world.now() >= deadline
    left = await _tried(_unload(observed, world), "the manifest")
    left += _still_held(observed)
    if not left or over:
        left += await _tried(_give_up_fields(observed, world), f"Deployment {engine.spec.target_ref.name}")
    if not left or over:
        left += await _tried(_delete_ours(observed, world), "ConfigMaps and Secret")
    if left and not over:
        await world.reporter.report(observed.obj, leaving_status(observed, left, now=world.now()))
        return AGAIN_SECONDS
    if left:
        await world.recorder.say(observed.obj, "Warning", "CleanupIncomplete", f"left behind: {'; '.join(left)}")
    await world.kube.patch(observed.obj, released)
    world.bases.pop(engine.key, None)
    world.access.pop(engine.key, None)
    return None


async def _tried(step: Awaitable[None], what: str) -> list[str]:
    """Take a step; return what it left behind, as a list of at most one sentence."""
    try:
        await step
    except (ApiException, ChangedError, FieldConflictError, OSError) as error:
        return [f"{what} ({_short(error)})"]
    return []


async def _unload(observed: Observed, world: World) -> None:
    await write_shards(emptied(observed, world), observed, world)


def emptied(observed: Observed, world: World) -> Manifest:
    """Return the manifest that holds nothing, for the shards that exist."""
    manifest = plan_manifest({}, observed.shards, adopted=True, now=world.now())
    writes = tuple(shard for shard in manifest.writes if shard.index in observed.shards)
    return Manifest(entries=(), writes=writes, changed=manifest.changed)


def _still_held(observed: Observed) -> list[str]:
    """Return the running pods whose agents have not told that they hold nothing any more."""
    running = [pod for pod in observed.pods if pod.get("status", {}).get("phase") == "Running"]
    names = [pod["metadata"]["name"] for pod in running if "deletionTimestamp" not in pod["metadata"]]
    held = [name for name in names if (report := observed.reports.get(name)) is None or report.entries]
    return [f"adapters in pod {name}" for name in held] if observed.record is not None else []


async def _give_up_fields(observed: Observed, world: World) -> None:
    deployment = observed.deployment
    if deployment is None or not is_ours(deployment) or holder_of(deployment) in observed.rivals:
        return
    patch = release_patch(observed.engine)
    await world.kube.apply(
        patch | {"metadata": patch["metadata"] | {"uid": deployment["metadata"]["uid"]}}, force=False
    )


async def _delete_ours(observed: Observed, world: World) -> None:
    for obj in observed.config_maps.values():
        await world.kube.delete(obj)
    if observed.secret is not None and lies_beside(observed.secret, observed.engine.metadata.name):
        await world.kube.delete(observed.secret)
    for adapter in world.store.referring("LoRAAdapter", "engine", observed.engine.key):
        world.wake(key_of(adapter))


def _short(error: Exception) -> str:
    return f"{error.status} {error.reason}" if isinstance(error, ApiException) else str(error)[:200]
