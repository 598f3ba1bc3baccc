"""Adapters and base models as far as the Hub shows them without a download: configs, and the headers of weights.

Above `hub.py`, which carries out one call each; what is read here goes to the adapter library, in the operator and in
`lora-inspect` alike.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final, Protocol

from lora_operator.adapter import BASE_CONFIG, CONFIG, Adapter, Base, FileFacts, from_parts, weights_files
from lora_operator.clients.hub import Place, Snapshot
from lora_operator.header_reading import ReadSpan, read_shapes, read_start

CONFIG_LIMIT: Final = 4 << 20
WHOLE_FILE_LIMIT: Final = 16 << 20
"""Weights that the Hub keeps outside LFS have no sha256 in its metadata; so small a file is read whole for it."""


class Reads(Protocol):
    """What reads a file at a commit, or a part of one: `hub.Hub`, or something that counts around it."""

    async def read(
        self, place: Place, path: str, *, token: str | None, span: tuple[int, int] | None = None, limit: int
    ) -> bytes:
        """Read a file at a commit (`place.revision`), or bytes [first, last] of it; at most `limit` bytes."""
        ...


@dataclass(frozen=True, slots=True)
class RemoteBase:
    """A base model's config, None where it is no JSON object, and its shapes, None where they can't be told."""

    config: Mapping[str, object] | None
    shapes: Base | None


async def read_adapter(hub: Reads, place: Place, snapshot: Snapshot, *, token: str | None) -> Adapter:
    """Read an adapter's config, and the start of its weights up to the end of their header."""
    pinned = replace(place, revision=snapshot.commit)
    facts = {file.path: FileFacts(file.size, file.sha256) for file in snapshot.files}
    config: bytes | None = None
    index: bytes | None = None
    headers: dict[str, bytes] = {}
    for name in weights_files(facts):
        known = facts[name]
        if not name.endswith(".safetensors"):
            data = await hub.read(pinned, name, token=token, limit=CONFIG_LIMIT)
            facts[name] = FileFacts(len(data), hashlib.sha256(data).hexdigest())
            config, index = (data, index) if name == CONFIG else (config, data)
        elif known.sha256 is None and known.size <= WHOLE_FILE_LIMIT:
            data = await hub.read(pinned, name, token=token, limit=WHOLE_FILE_LIMIT)
            facts[name] = FileFacts(len(data), hashlib.sha256(data).hexdigest())
            headers[name] = data
        else:
            headers[name] = await read_start(_spans_of(hub, pinned, token), name, size=known.size)
    return from_parts(config, files=facts, headers=headers, index_bytes=index)


async def read_base(hub: Reads, place: Place, snapshot: Snapshot, *, token: str | None) -> RemoteBase:
    """Read a base's config.json and the headers of all of its shards: exact shapes, one small request a shard."""
    pinned = replace(place, revision=snapshot.commit)
    sizes = {file.path: file.size for file in snapshot.files}
    config = await _read_config(hub, pinned, token=token) if BASE_CONFIG in sizes else None
    return RemoteBase(config, await read_shapes(_spans_of(hub, pinned, token), sizes, config))


def _spans_of(hub: Reads, place: Place, token: str | None) -> ReadSpan:
    async def read(name: str, start: int, stop: int) -> bytes:
        return await hub.read(place, name, token=token, span=(start, stop - 1), limit=stop - start)

    return read


async def _read_config(hub: Reads, place: Place, *, token: str | None) -> Mapping[str, object] | None:
    data = await hub.read(place, BASE_CONFIG, token=token, limit=CONFIG_LIMIT)
    try:
        config = json.loads(data)
    except (RecursionError, ValueError):
        return None
    return config if isinstance(config, dict) else None
