"""What the LoRAAdapter pass reads: the object, its engine, its pins in the manifest, and what each pod says of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from lora_operator.allowing import takes_from
from lora_operator.api.lora_adapter import AdapterStatus, LoRAAdapter
from lora_operator.api.lora_engine import LoRAEngine
from lora_operator.api.lora_training_job import LoRATrainingJob
from lora_operator.engine_pod.observe import shards_of
from lora_operator.labels import Key, is_suspended, key_of
from lora_operator.protocol.door import EntryReport
from lora_operator.protocol.manifest import Entry
from lora_operator.world import World

Object = dict[str, Any]

SILENCE_SECONDS: Final = 60.0


@dataclass(frozen=True, kw_only=True)
class PodView:
    """One Ready pod of the engine. `entries` is None while its agent has not been heard."""

    name: str
    entries: Mapping[str, EntryReport] | None
    silent: bool = False
    """Its agent has not answered for so long that it counts as not holding anything."""


@dataclass(frozen=True, kw_only=True)
class Observed:
    """Everything that the pass decides from."""

    obj: Object
    adapter: LoRAAdapter
    engine: LoRAEngine | None
    allowed: bool
    job: LoRATrainingJob | None
    held: tuple[Entry, ...]
    """This object's entries: as last wanted, else as the manifest has them."""
    written: tuple[Entry, ...]
    """This object's entries in the manifest as written."""
    pods: tuple[PodView, ...]
    suspended: bool
    now: datetime

    @property
    def status(self) -> AdapterStatus:
        """Return the status as it stands."""
        return self.adapter.status or AdapterStatus()


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
        for shard in shards_of(adapter.engine_key, world)
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


def is_ready(pod: Object) -> bool:
    """Tell whether a pod takes traffic: Ready and not on its way out."""
    conditions = (pod.get("status") or {}).get("conditions") or []
    ready = any(condition["type"] == "Ready" and condition["status"] == "True" for condition in conditions)
    return ready and "deletionTimestamp" not in pod["metadata"]
