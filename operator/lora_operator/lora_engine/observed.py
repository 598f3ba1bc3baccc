"""What a pass observed, as one frozen value: all that plan and status go by. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lora_operator.api import LoRAEngine
from lora_operator.lora_engine.adoption import Record
from lora_operator.lora_engine.manifests import Defaults, adoption_name
from lora_operator.lora_engine.secret import decoded
from lora_operator.lora_engine.shards import Holders
from lora_operator.protocol.door import Report
from lora_operator.protocol.manifest import SHARDS, Shard, shard_in, shard_name

Object = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Observed:
    """Everything that one pass decides from."""

    engine: LoRAEngine
    obj: Object
    """The LoRAEngine as the apiserver gave it."""
    deployment: Object | None
    trap: bool
    """Whether the namespace has a Service that breaks the engine by service links."""
    rivals: frozenset[str]
    """The names of the other LoRAEngines of the namespace."""
    config_maps: Mapping[str, Object]
    """Ours beside the engine, by name."""
    secret: Object | None
    pods: tuple[Object, ...]
    reports: Mapping[str, Report]
    """By name of the pod."""
    holders: Holders
    tokens: Mapping[str, str]
    defaults: Defaults

    @property
    def record(self) -> Record | None:
        """Return the record of the adoption."""
        return Record.read(self.config_maps.get(adoption_name(self.engine.metadata.name)))

    @property
    def shards(self) -> dict[int, Shard | None]:
        """Return the shards that exist; None for one that can't be read."""
        return shards_in(self.engine.metadata.name, self.config_maps)

    @property
    def secret_data(self) -> dict[str, str]:
        """Return what the Secret holds."""
        return decoded(self.secret)


def shards_in(engine: str, config_maps: Mapping[str, Object]) -> dict[int, Shard | None]:
    """Return the shards among the ConfigMaps."""
    found = {index: config_maps.get(shard_name(engine, index)) for index in range(SHARDS)}
    return {index: shard_in(config_map) for index, config_map in found.items() if config_map is not None}
