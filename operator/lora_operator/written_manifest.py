"""The manifest as it stands written, read back from what was seen: pins for one pass, what to push for another."""

from __future__ import annotations

from lora_operator.labels import Key
from lora_operator.protocol.manifest import Shard, shard_in
from lora_operator.store import Store


def shards_of(engine: Key, store: Store) -> tuple[Shard, ...]:
    """Return the engine's shards as they stand written; those that can't be read are left out."""
    shards = [shard_in(config_map) for config_map in store.referring("ConfigMap", "engine", engine)]
    return tuple(shard for shard in shards if shard is not None)
