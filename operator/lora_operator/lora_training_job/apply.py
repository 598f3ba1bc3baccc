"""What the LoRATrainingJob pass does to the world: the frozen spec, the Job, the LoRAAdapter, and its own end."""

from __future__ import annotations

from typing import Any

from kubernetes.aio.client.exceptions import ApiException

from lora_operator import labels, progress_certificate
from lora_operator.clients.kube import ADAPTERS, REFUSED, said_by_apiserver
from lora_operator.engine_terms import limits_of
from lora_operator.errors import Blocked
from lora_operator.labels import Key
from lora_operator.lora_training_job import manifests
from lora_operator.lora_training_job.manifests import Pins
from lora_operator.lora_training_job.observed import Frozen, Observed
from lora_operator.lora_training_job.plan import timing
from lora_operator.world import World

Object = dict[str, Any]


async def freeze(observed: Observed, pins: Pins, world: World) -> Frozen:
    """Write down everything that this training is."""
    settings = world.settings
    progress_ca = (await progress_certificate.authority(world)).certificate if settings.progress_url else ""
    base = observed.base.config if observed.base is not None else None
    limits = limits_of(observed.engine, base=base) if observed.engine is not None else None
    body = manifests.frozen(observed.job, limits, pins, settings=settings, progress_ca=progress_ca)
    # First what the pod mounts: once the spec is frozen, the data set is not looked at any more.
    if (dataset := manifests.frozen_dataset(observed.job, pins)) is not None:
        await world.kube.apply(dataset)
    return Frozen.read(await world.kube.apply(body))


async def run(frozen: Frozen, observed: Observed, world: World) -> Object:
    """Make the Job, or give one that is there the spec's suspension and deadline, and no attempt more than can help."""
    try:
        return await world.kube.apply(manifests.timed(frozen.job, timing(observed)))
    except ApiException as error:
        if error.status not in REFUSED:
            raise
        raise Blocked(
            "JobRefused", f"the apiserver does not take the training's Job: {said_by_apiserver(error)}"
        ) from error


async def serve(observed: Observed, commit: str, world: World) -> None:
    """Make the LoRAAdapter that was asked for, or give one that this training job's name made the new commit.

    One that nobody made for this training job is left alone.
    """
    wanted = manifests.adapter(observed.job, commit=commit)
    key = Key("LoRAAdapter", observed.job.metadata.namespace, wanted["metadata"]["name"])
    there = world.store.get(key) or await world.kube.get(ADAPTERS, key.namespace, key.name)
    if there is None:
        try:
            await world.kube.create(wanted)
        except ApiException as error:
            if error.status != 409:
                raise
            there = await world.kube.get(ADAPTERS, key.namespace, key.name)
    if there is None:
        return
    made_for = (there["metadata"].get("labels") or {}).get(labels.TRAINING_JOB)
    if made_for != observed.job.metadata.name:
        raise Blocked(
            "AdapterNameTaken",
            f"published, but LoRAAdapter {key.name} was not made by this training job: "
            f"delete it, or label it {labels.TRAINING_JOB}={observed.job.metadata.name}",
        )
    if not _covers(there["spec"], wanted["spec"]):
        wanted["metadata"]["uid"] = there["metadata"]["uid"]
        await world.kube.apply(wanted)


async def remove(observed: Observed, world: World) -> None:
    """Delete the training job whose time is up; its Job, pods and ConfigMap go with it, by their owner."""
    await world.kube.delete(observed.obj)


def forget(key: Key, world: World) -> None:
    """Drop what the blackboards still have of an object that is gone."""
    world.progress.pop(key, None)
    world.refusals.pop(key, None)
    world.reporter.forget(key)


def _covers(there: Any, wanted: Any) -> bool:
    """Tell whether an object has everything that is wanted of it, whatever else defaults have put there."""
    if isinstance(wanted, dict):
        return isinstance(there, dict) and all(_covers(there.get(name), value) for name, value in wanted.items())
    if isinstance(wanted, list):
        return isinstance(there, list) and len(there) == len(wanted) and all(map(_covers, there, wanted))
    return bool(there == wanted)
