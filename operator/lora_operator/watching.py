"""What was seen, turned into keys: takes in objects from watches and LISTs and wakes the passes they matter to.

The one table of who depends on whom. Decides nothing else, and nothing here can fail for a reason worth a retry.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Iterable
from typing import Any, Final

from lora_operator import labels, metrics
from lora_operator.clients.kube import ADAPTERS, CONFIG_MAPS, DEPLOYMENTS, JOBS, PODS, WATCHED, Kube, Resource
from lora_operator.labels import Key, key_of
from lora_operator.pods import is_ready
from lora_operator.store import Store, engine_of_adapter, engine_of_labelled, job_of_labelled

logger = logging.getLogger(__name__)

Object = dict[str, Any]

SELECTORS: Final = {
    DEPLOYMENTS: labels.ENGINE,
    PODS: labels.ROLE,
    CONFIG_MAPS: labels.ENGINE,
    JOBS: labels.TRAINING_JOB,
}
"""Label selectors of our watches: the apiserver sends us nothing else of these resources."""

_VERSIONS: Final = frozenset({"resourceVersion", "managedFields"})


def concerned(obj: Object, store: Store) -> Iterable[Key]:
    """Yield the keys of the passes that an object matters to."""
    key = key_of(obj)
    match key.kind:
        case "LoRAEngine":
            yield key
            yield from map(key_of, store.referring("LoRAAdapter", "engine", key))
            yield from map(key_of, store.referring("LoRATrainingJob", "engine", key))
        case "LoRATrainingJob":
            yield key
            yield from map(key_of, store.referring("LoRAAdapter", "source", key))
        case "LoRAAdapter":
            yield key
        case "Deployment" | "ConfigMap":
            yield from engine_of_labelled(obj)
        case "Job":
            yield from job_of_labelled(obj)
        case "Pod":
            yield from job_of_labelled(obj)
            if engine_of_labelled(obj):
                yield key
                yield from engine_of_labelled(obj)


class Watching:
    """Takes in objects and wakes keys."""

    def __init__(self, store: Store, wake: Callable[[Key], None]) -> None:
        self._store = store
        self._wake = wake

    def informed(self, obj: Object, *, deleted: bool) -> None:
        """Take in what a watch told."""
        before = self._store.get(key_of(obj))
        changed = self._store.gone(obj) if deleted else self._store.saw(obj)
        if not changed:
            return
        self._wake_concerned(obj)
        if obj["kind"] == PODS.kind and (before is not None and is_ready(before)) != (is_ready(obj) and not deleted):
            for engine in engine_of_labelled(obj):
                for adapter in self._store.referring(ADAPTERS.kind, "engine", engine):
                    self._wake(key_of(adapter))
        if deleted and obj["kind"] == ADAPTERS.kind:
            # Its own pass has nothing left to read: the engine's drops what the manifest still has of it.
            for key in engine_of_adapter(obj):
                self._wake(key)

    def wrote(self, obj: Object) -> None:
        """Take in what a write of ours returned: when the watch tells of it, it is no news any more.

        A status concerns everybody but the pass that wrote it.
        """
        before = self._store.get(key_of(obj))
        own = key_of(obj) if before is not None and _but_status(before) == _but_status(obj) else None
        if self._store.saw(obj):
            self._wake_concerned(obj, but=own)

    def _wake_concerned(self, obj: Object, *, but: Key | None = None) -> None:
        metrics.OBJECTS.labels(obj["kind"]).set(len(self._store.kind(obj["kind"])))
        for key in concerned(obj, self._store):
            if key != but:
                self._wake(key)


def _but_status(obj: Object) -> Object:
    metadata = {name: value for name, value in obj["metadata"].items() if name not in _VERSIONS}
    return obj | {"metadata": metadata, "status": None}


async def take_in(resource: Resource, *, kube: Kube, store: Store, namespaces: tuple[str, ...]) -> list[Key]:
    """LIST a resource into the store; return the keys that changed or vanished since the watch last told."""
    changed: list[Key] = []
    items: list[Object] = []
    version = 0
    for namespace in namespaces or (None,):
        listing = await kube.list(resource, namespace=namespace, selector=SELECTORS.get(resource, ""))
        items += listing.items
        version = min(version, listing.version) if version else listing.version
    changed += store.replace(resource.kind, items, version=version)
    metrics.OBJECTS.labels(resource.kind).set(len(store.kind(resource.kind)))
    return changed


async def resync(
    *, kube: Kube, store: Store, namespaces: tuple[str, ...], seconds: int, wake: Callable[[Key], None]
) -> None:
    """Every `seconds`, LIST everything and wake every key of ours: heals what a watch lost. Runs until cancelled."""
    while True:
        await asyncio.sleep(seconds * random.uniform(0.9, 1.1))  # noqa: S311 - jitter
        for resource in WATCHED:
            before = {key: obj for key in store.kind(resource.kind) if (obj := store.get(key))}
            try:
                changed = await take_in(resource, kube=kube, store=store, namespaces=namespaces)
            except Exception as error:  # noqa: BLE001 - the next round tries again
                logger.warning("a resync of %s failed: %s", resource.plural, error)
                continue
            for key in changed:
                for dependent in concerned(store.get(key) or before[key], store):
                    wake(dependent)
            for key in store.kind(resource.kind):
                if resource.api_version == labels.API_VERSION:
                    wake(key)
