"""What the LoRAAdapter pass reads: the object, its engine, its pins in the manifest, and what each pod says of it."""

from __future__ import annotations

from typing import Any

from lora_operator.allowing import takes_from
from lora_operator.api.lora_adapter import LoRAAdapter
from lora_operator.api.lora_engine import LoRAEngine
from lora_operator.api.lora_training_job import LoRATrainingJob
from lora_operator.labels import Key, is_suspended, key_of
from lora_operator.lora_adapter.observed import Observed, PodView
from lora_operator.pods import is_ready, is_starting
from lora_operator.world import SILENCE_SECONDS, World
from lora_operator.written_manifest import shards_of

Object = dict[str, Any]


async def observe(key: Key, world: World) -> Observed | None:
    """Read everything; None where the object is gone."""
    obj = world.store.get(key)
    if obj is None:
        return None
    adapter = LoRAAdapter.model_validate(obj)
    engine_obj = world.store.get(adapter.engine_key)
    engine = LoRAEngine.model_validate(engine_obj) if engine_obj else None
    written = tuple(
        entry
        for shard in shards_of(adapter.engine_key, world.store)
        for entry in shard.entries
        if entry.owner.uid == adapter.metadata.uid
    )
    return Observed(
        obj=obj,
        adapter=adapter,
        engine=engine,
        allowed=engine is not None and await takes_from(engine, adapter.metadata.namespace, world.kube),
        job=_source_job(adapter, world),
        held=world.wanted.get(key, written),
        written=written,
        pods=_pods(adapter.engine_key, world),
        starting=any(is_starting(pod) for pod in world.store.referring("Pod", "engine", adapter.engine_key)),
        suspended=is_suspended(obj),
        now=world.now(),
    )


def _source_job(adapter: LoRAAdapter, world: World) -> LoRATrainingJob | None:
    ref = adapter.spec.source.training_job_ref
    obj = world.store.get(Key("LoRATrainingJob", adapter.metadata.namespace, ref.name)) if ref else None
    return LoRATrainingJob.model_validate(obj) if obj else None


def _pods(engine: Key, world: World) -> tuple[PodView, ...]:
    return tuple(_view(pod, world) for pod in world.store.referring("Pod", "engine", engine) if is_ready(pod))


def _view(pod: Object, world: World) -> PodView:
    key = key_of(pod)
    report = world.reports.get(key)
    since = world.silent.get(key)
    return PodView(
        name=key.name,
        entries={entry.engine_name: entry for entry in report.entries} if report is not None else None,
        silent=since is not None and (world.now() - since).total_seconds() > SILENCE_SECONDS,
    )
