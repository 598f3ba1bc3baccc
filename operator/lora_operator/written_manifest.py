"""The manifest as it stands written, read back from what was seen: pins for one pass, what to push for another."""

from __future__ import annotations

from lora_operator.labels import Key
from lora_operator.protocol.manifest import DATA_KEY, Shard, read_shard
from lora_operator.store import Store


def shards_of(engine: Key, store: Store) -> tuple[Shard, ...]:
    """Return the engine's shards as they stand written; those that can't be read are left out."""
    texts = [(shard.get("data") or {}).get(DATA_KEY) for shard in store.referring("ConfigMap", "engine", engine)]
    shards = [read_shard(text) for text in texts if text]
    return tuple(shard for shard in shards if shard is not None)
