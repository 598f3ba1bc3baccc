"""Carries out a plan, in the order that a kill between any two writes leaves nothing behind that the next pass misses.

Finaliser, Secret, shards and the record come before the Deployment's patch: a pod never waits for them. What somebody
else made under the name of one of ours is left alone.
"""

from __future__ import annotations

import asyncio
from typing import Any

from kubernetes.aio.client.exceptions import ApiException

from lora_operator.clients.kube import CONFIG_MAPS, REFUSED, said_by_apiserver
from lora_operator.engines.refusal import Refusal
from lora_operator.errors import FieldConflictError
from lora_operator.finalizing import with_finalizer
from lora_operator.labels import FINALIZER_MANAGER, Key, key_of
from lora_operator.lora_engine import adoption
from lora_operator.lora_engine.adoption import Record
from lora_operator.lora_engine.manifests import adoption_name, shard_object
from lora_operator.lora_engine.observed import Observed
from lora_operator.lora_engine.ownership import lies_beside
from lora_operator.lora_engine.plan import Plan
from lora_operator.lora_engine.secret import secret_object
from lora_operator.lora_engine.shards import Manifest
from lora_operator.protocol.manifest import shard_name
from lora_operator.world import World

Object = dict[str, Any]


async def execute(todo: Plan, observed: Observed, world: World) -> Refusal | None:
    """Write what the plan says; return why the apiserver would not take it, if so."""
    if todo.manifest is None:
        return None
    if (taken := await _taken(todo, observed, world)) is not None:
        return taken
    await _hold(observed, world)
    try:
        await _write_beside(todo, todo.manifest, observed, world)
    except ApiException as error:
        if error.status not in REFUSED:
            raise
        return Refusal(
            "WriteRefused",
            f"the apiserver refused what has to lie beside the engine, eight ConfigMaps, a record and a Secret:"
            f" {said_by_apiserver(error)}",
        )
    if todo.record is None or not todo.apply or observed.deployment is None:
        return None
    refusal = await _patch(todo.record.patch, observed.deployment, world)
    if refusal is None and todo.stamp is not None:
        await _write_record(todo.stamp, observed, world)
    return refusal


async def _taken(todo: Plan, observed: Observed, world: World) -> Refusal | None:
    """Return why a name of ours is not free: force is for our own objects alone."""
    name, namespace = observed.engine.metadata.name, observed.engine.metadata.namespace
    there = [observed.secret]
    wanted = [shard_name(name, shard.index) for shard in todo.manifest.writes] if todo.manifest else []
    wanted += [adoption_name(name)] if todo.write_record else []
    there += [await world.kube.get(CONFIG_MAPS, namespace, one) for one in wanted if one not in observed.config_maps]
    for obj in filter(None, there):
        if not lies_beside(obj, name):
            what = f"{obj['kind']} {obj['metadata']['name']}"
            return Refusal(
                "NameTaken",
                f"{what} was not made by us, and has the name of what belongs beside LoRAEngine {name}: delete"
                " or rename it, or give the LoRAEngine another name",
            )
    return None


async def _write_beside(todo: Plan, manifest: Manifest, observed: Observed, world: World) -> None:
    if todo.secret is not None:
        await write_secret(todo.secret, observed, world)
    await write_shards(manifest, observed, world)
    if todo.record is not None and todo.write_record:
        await _write_record(todo.record, observed, world)


async def write_secret(data: dict[str, str], observed: Observed, world: World) -> None:
    """Write the Secret, and forget the access to the agents that was read from it."""
    await world.kube.apply(_over(secret_object(observed.engine, data), observed.secret))
    world.access.pop(observed.engine.key, None)


async def write_shards(manifest: Manifest, observed: Observed, world: World) -> None:
    """Write the shards that change, then wake the pods that are to hear of it and the adapters that it is about."""
    objects = [shard_object(observed.engine, shard) for shard in manifest.writes]
    writes = [world.kube.apply(_over(obj, observed.config_maps.get(obj["metadata"]["name"]))) for obj in objects]
    for written in await asyncio.gather(*writes, return_exceptions=True):
        if isinstance(written, BaseException):
            raise written
    if manifest.writes:
        for pod in observed.pods:
            world.wake(key_of(pod))
        for owner in manifest.changed:
            world.wake(Key("LoRAAdapter", owner.namespace, owner.name))


async def _hold(observed: Observed, world: World) -> None:
    if (obj := with_finalizer(observed.obj)) is not None:
        await world.kube.apply(obj, manager=FINALIZER_MANAGER)


async def _write_record(record: Record, observed: Observed, world: World) -> None:
    obj = adoption.config_map(observed.engine, record)
    await world.kube.apply(obj)


async def _patch(patch: Object, deployment: Object, world: World) -> Refusal | None:
    obj = patch | {"metadata": patch["metadata"] | {"uid": deployment["metadata"]["uid"]}}
    try:
        await world.kube.apply(obj, force=False)
    except FieldConflictError as conflict:
        return Refusal(
            "FieldConflict",
            f"another field manager holds fields that adopting needs: {conflict.details}. Remove them from what it"
            " applies",
        )
    except ApiException as error:
        if error.status not in REFUSED:
            raise
        return Refusal("AdoptionRejected", f"the apiserver refused the patch: {said_by_apiserver(error)}")
    return None


def _over(obj: Object, before: Object | None) -> Object:
    """Return the object with the version that it is to replace as a precondition."""
    if before is None:
        return obj
    precondition = {name: before["metadata"][name] for name in ("uid", "resourceVersion")}
    return obj | {"metadata": obj["metadata"] | precondition}
