"""What the LoRAEngine pass reads: the Deployment as it stands, what lies beside the engine, its pods and adapters."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from lora_operator import labels
from lora_operator.api import LoRAEngine
from lora_operator.clients.kube import ADAPTERS, CONFIG_MAPS, DEPLOYMENTS, SECRETS, SERVICES
from lora_operator.engines import vllm
from lora_operator.labels import Key, key_of
from lora_operator.lora_engine.manifests import Defaults
from lora_operator.lora_engine.observed import Observed, shards_in
from lora_operator.lora_engine.shards import Holders, entries_of
from lora_operator.protocol.door import secret_name
from lora_operator.protocol.manifest import SHARDS, Shard
from lora_operator.settings import Settings
from lora_operator.world import World

Object = dict[str, Any]


async def observe(engine: LoRAEngine, obj: Object, world: World) -> Observed:
    """Read everything that the pass decides from."""
    key, namespace = engine.key, engine.metadata.namespace
    config_maps = await _config_maps(key, world)
    pods = tuple(world.store.referring("Pod", "engine", key))
    return Observed(
        engine=engine,
        obj=obj,
        deployment=await world.kube.get(DEPLOYMENTS, namespace, engine.spec.target_ref.name),
        trap=await world.kube.get(SERVICES, namespace, vllm.TRAP_SERVICE) is not None,
        rivals=_rivals(key, world),
        config_maps=config_maps,
        secret=await world.kube.get(SECRETS, namespace, secret_name(key.name)),
        pods=pods,
        reports={
            pod["metadata"]["name"]: report for pod in pods if (report := world.reports.get(key_of(pod))) is not None
        },
        holders=await _holders(key, shards_in(key.name, config_maps), world),
        tokens=world.credentials,
        defaults=defaults_of(world.settings),
    )


def defaults_of(settings: Settings) -> Defaults:
    """Return what the operator was installed with for agents."""
    return Defaults(
        image=settings.agent_image,
        resources=json.loads(settings.agent_resources),
        env=tuple(json.loads(settings.pod_env)),
        image_pull_secrets=settings.image_pull_secrets,
    )


def _rivals(key: Key, world: World) -> frozenset[str]:
    return frozenset(
        other.name for other in world.store.kind("LoRAEngine") if other.namespace == key.namespace and other != key
    )


async def _config_maps(key: Key, world: World) -> dict[str, Object]:
    """Return our ConfigMaps; where one is missing, ask the apiserver before it counts as not there."""
    seen = world.store.referring("ConfigMap", "engine", key)
    if len(seen) <= SHARDS:
        listing = await world.kube.list(CONFIG_MAPS, namespace=key.namespace, selector=f"{labels.ENGINE}={key.name}")
        for config_map in listing.items:
            world.store.saw(config_map)
        seen = world.store.referring("ConfigMap", "engine", key)
    return {config_map["metadata"]["name"]: config_map for config_map in seen}


async def _holders(key: Key, shards: Mapping[int, Shard | None], world: World) -> Holders:
    """Return what each LoRAAdapter of the engine wants; one that only the manifest knows is looked for before it counts
    as gone."""
    holders: dict[str, tuple[Any, ...] | None] = {}
    for adapter in world.store.referring("LoRAAdapter", "engine", key):
        uid = adapter["metadata"]["uid"]
        wanted = world.wanted.get(key_of(adapter))
        of_another = wanted is not None and any(entry.owner.uid != uid for entry in wanted)
        holders[uid] = None if of_another else wanted
    watched = world.settings.watch_namespaces
    for owner in {entry.owner for entry in entries_of(shards.values()) if entry.owner.uid not in holders}:
        if watched and owner.namespace not in watched:  # no longer: we may not look, so what it holds stays
            holders[owner.uid] = None
            continue
        live = await world.kube.get(ADAPTERS, owner.namespace, owner.name)
        if live is not None and live["metadata"]["uid"] == owner.uid:
            holders[owner.uid] = None
    return holders
