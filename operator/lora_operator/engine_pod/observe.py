"""What the Pod pass reads: the pod, its engine's shards and door, and what its agent said last."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from typing import Any

from lora_operator.clients.door import Access
from lora_operator.clients.kube import SECRETS
from lora_operator.labels import Key
from lora_operator.protocol.door import CERT_KEY, TOKEN_KEY, Report, secret_name
from lora_operator.protocol.manifest import Shard
from lora_operator.store import engine_of_labelled
from lora_operator.world import World
from lora_operator.written_manifest import shards_of

Object = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Observed:
    """One engine pod that can be spoken to."""

    engine: Key
    address: str
    access: Access
    shards: tuple[Shard, ...]
    heard: Report | None


async def observe(key: Key, world: World) -> Observed | None:
    """Read everything; None where there is nobody to speak to: the pod is gone, ends, or has no address yet."""
    pod = world.store.get(key)
    if pod is None or not _speaks(pod):
        return None
    engine = engine_of_labelled(pod)[0]
    access = world.access.get(engine) or await _read_access(engine, world)
    if access is None:
        return None
    return Observed(
        engine=engine,
        address=pod["status"]["podIP"],
        access=access,
        shards=shards_of(engine, world.store),
        heard=world.reports.get(key),
    )


def _speaks(pod: Object) -> bool:
    status = pod.get("status") or {}
    over = "deletionTimestamp" in pod["metadata"] or status.get("phase") in {"Succeeded", "Failed"}
    return bool(status.get("podIP")) and not over and bool(engine_of_labelled(pod))


async def _read_access(engine: Key, world: World) -> Access | None:
    secret = await world.kube.get(SECRETS, engine.namespace, secret_name(engine.name))
    data = (secret or {}).get("data") or {}
    if CERT_KEY not in data or TOKEN_KEY not in data:
        return None
    access = Access(*(base64.b64decode(data[name]).decode() for name in (CERT_KEY, TOKEN_KEY)))
    world.access[engine] = access
    return access
