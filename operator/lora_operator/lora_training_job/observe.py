"""What the LoRATrainingJob pass reads, from what was seen."""

from __future__ import annotations

from lora_operator.allowing import takes_from
from lora_operator.api.lora_engine import LoRAEngine
from lora_operator.api.lora_training_job import LoRATrainingJob
from lora_operator.clients.kube import CONFIG_MAPS
from lora_operator.labels import Key, is_suspended
from lora_operator.lora_training_job import manifests
from lora_operator.lora_training_job.attempts import Attempt, attempt
from lora_operator.lora_training_job.observed import Frozen, Object, Observed
from lora_operator.protocol.door import Base
from lora_operator.world import World


async def observe(key: Key, world: World) -> Observed | None:
    """Read everything; None where the object is gone."""
    obj = world.store.get(key)
    if obj is None:
        return None
    job = LoRATrainingJob.model_validate(obj)
    engine_obj = world.store.get(job.engine_key) if job.engine_key is not None else None
    engine = LoRAEngine.model_validate(engine_obj) if engine_obj else None
    run = _controlled(world.store.referring("Job", "job", key), by=job.metadata.uid)
    pods = world.store.referring("Pod", "job", key)
    return Observed(
        obj=obj,
        job=job,
        engine=engine,
        base=_base(job, world),
        allowed=engine is not None and await takes_from(engine, job.metadata.namespace, world.kube),
        run=run[0] if run else None,
        attempts=_attempts(_controlled(pods, by=run[0]["metadata"]["uid"]) if run else []),
        reported=world.progress.get(key),
        suspended=is_suspended(obj),
        now=world.now(),
    )


async def thaw(observed: Observed, world: World) -> Frozen | None:
    """Read what was frozen; None where nothing was yet."""
    namespace, name = observed.job.metadata.namespace, manifests.run_name(observed.job)
    found = await world.kube.get(CONFIG_MAPS, namespace, name)
    return Frozen.read(found) if found is not None else None


def _base(job: LoRATrainingJob, world: World) -> Base | None:
    known = world.bases.get(job.engine_key) if job.engine_key is not None else None
    return known if known is not None and known.name == job.spec.base_model.name else None


def _attempts(pods: list[Object]) -> tuple[Attempt, ...]:
    ordered = sorted(pods, key=lambda pod: (pod["metadata"]["creationTimestamp"], pod["metadata"]["name"]))
    return tuple(attempt(pod) for pod in ordered)


def _controlled(objects: list[Object], *, by: str) -> list[Object]:
    """Return the objects that this owner controls: labels alone anybody can set."""
    return [
        obj
        for obj in objects
        if any(owner["uid"] == by and owner.get("controller") for owner in obj["metadata"].get("ownerReferences") or [])
    ]
