"""The manifest: what the pods of one engine are to hold, in eight shards.

The operator's engine pass is its only writer. Each shard is one ConfigMap and one file in the agent's projected volume.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic.alias_generators import to_camel

VERSION: Final = 1
SHARDS: Final = 8
DATA_KEY: Final = "manifest.json"
"""The key in a shard's ConfigMap."""
MOUNT_PATH: Final = "/etc/lora-agent/manifest"
"""Where the agent finds the projected volume; a shard is `<MOUNT_PATH>/<index>.json`."""


class Wire(BaseModel):
    """A value that travels between programs: frozen, camelCase, blind to fields of a later version."""

    model_config = ConfigDict(frozen=True, alias_generator=to_camel, populate_by_name=True, extra="ignore")


class File(Wire):
    """One file of an adapter, as the Hub's metadata gives it at the pinned commit."""

    path: str
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    size: int = Field(ge=0)


class HubSource(Wire):
    """Where the agent fetches from. `credential` names a key of the engine's Secret (see `protocol.door`)."""

    repo: str
    commit: str
    credential: str | None = None


class Owner(Wire):
    """The LoRAAdapter that an entry serves, and the request it answers: the pin holds while these stay the same."""

    namespace: str
    name: str
    uid: str
    generation: int
    requested_at: str = ""


class Entry(Wire):
    """One adapter version that every pod of the engine is to hold. Also the pin: commit, files and digest."""

    engine_name: str
    """`<namespace>.<name>.<12 hex of digest>`: what the engine calls it; unique to the content."""
    digest: str
    hub: HubSource
    files: tuple[File, ...]
    owner: Owner
    resolved: str
    """When the pin was made, in RFC 3339: of two versions of one adapter, the later one is wanted."""
    rank: int
    lora_alpha: str
    """A decimal as a string; empty where the adapter's patterns say it per module."""
    target_modules: tuple[str, ...]

    @property
    def size_bytes(self) -> int:
        """The bytes that the agent fetches and reserves for this entry."""
        return sum(file.size for file in self.files)


class Shard(Wire):
    """One eighth of the manifest. `revision` only grows; the agent acts on a higher one only."""

    version: Literal[1] = 1
    index: int = Field(ge=0, lt=SHARDS)
    revision: int = Field(ge=1)
    entries: tuple[Entry, ...] = ()

    def to_json(self) -> str:
        """Return the text that is stored and pushed: stable for equal content."""
        return self.model_dump_json(by_alias=True, exclude_none=True)


def shard_of(engine_name: str) -> int:
    """Return the index of the shard that holds this engine name: a hash, so that it never moves."""
    return hashlib.sha256(engine_name.encode()).digest()[0] % SHARDS


def shard_name(engine: str, index: int) -> str:
    """Return the name of a shard's ConfigMap for the LoRAEngine called `engine`."""
    return f"{engine}-lora-{index}"


def read_shard(text: str | bytes) -> Shard | None:
    """Parse a shard; None where it is unreadable or of a version that this program does not know.

    None means *unknown*: the reader keeps what it has.
    """
    try:
        return Shard.model_validate_json(text)
    except ValidationError:
        return None


def shard_in(config_map: Mapping[str, Any]) -> Shard | None:
    """Return the shard that a ConfigMap holds; None as `read_shard` says."""
    return read_shard((config_map.get("data") or {}).get(DATA_KEY, ""))
