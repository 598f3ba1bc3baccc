"""What an agent has to be told, and who has to hear what it said. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from lora_operator.labels import Key
from lora_operator.protocol.door import Report
from lora_operator.protocol.manifest import Shard


def shards_to_push(shards: Iterable[Shard], heard: Report | None) -> tuple[Shard, ...]:
    """Return the shards that the agent has not acted on yet. One never heard of gets them all."""
    acted = heard.shards if heard is not None else {}
    return tuple(shard for shard in shards if acted.get(str(shard.index), 0) < shard.revision)


def engine_names_changed(before: Report | None, after: Report | None) -> frozenset[str]:
    """Return the engine names whose state differs between two reports of one pod."""
    was = {entry.engine_name: entry for entry in before.entries} if before is not None else {}
    now = {entry.engine_name: entry for entry in after.entries} if after is not None else {}
    return frozenset(name for name in was.keys() | now.keys() if was.get(name) != now.get(name))


def adapter_of(engine_name: str) -> Key | None:
    """Return the LoRAAdapter that an engine name `<namespace>.<name>.<12 hex>` belongs to; None for any other name."""
    namespace, _, rest = engine_name.partition(".")
    name, _, _ = rest.rpartition(".")
    return Key("LoRAAdapter", namespace, name) if namespace and name else None
