"""Adapters and base models as far as the Hub shows them without a download: configs, and the headers of weights.

Above `hub.py`, which carries out one call each; what is read here goes to the adapter library, in the operator and in
`lora-inspect` alike.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final, Protocol

from lora_operator.adapter import (
    CONFIG,
    Adapter,
    Base,
    FileFacts,
    Header,
    HeaderError,
    base_from_config,
    base_from_headers,
    base_weights_files,
    from_parts,
    header_range,
    parse_header,
    weights_files,
)
from lora_operator.clients.hub import Place, Snapshot

CONFIG_LIMIT: Final = 4 << 20
WHOLE_FILE_LIMIT: Final = 16 << 20
"""Weights that the Hub keeps outside LFS have no sha256 in its metadata; so small a file is read whole for it."""
BASE_CONFIG: Final = "config.json"
_SHARDS_LIMIT: Final = 512
_AT_ONCE: Final = 8


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
            headers[name] = await read_start(hub, pinned, name, size=known.size, token=token)
    return from_parts(config, files=facts, headers=headers, index_bytes=index)


async def read_base(hub: Reads, place: Place, snapshot: Snapshot, *, token: str | None) -> RemoteBase:
    """Read a base's config.json and the headers of all of its shards: exact shapes, one small request a shard."""
    pinned = replace(place, revision=snapshot.commit)
    sizes = {file.path: file.size for file in snapshot.files}
    config = await _read_config(hub, pinned, token=token) if BASE_CONFIG in sizes else None
    shards = base_weights_files(sizes)
    headers = await _read_headers(hub, pinned, {name: sizes[name] for name in shards}, token=token)
    shapes = base_from_headers(headers, config) if headers else None
    return RemoteBase(config, shapes or (base_from_config(config) if config is not None else None))


async def read_start(hub: Reads, place: Place, name: str, *, size: int, token: str | None) -> bytes:
    """Read the start of a safetensors file up to the end of its header, in one request for nearly every file."""
    data = b""
    with contextlib.suppress(HeaderError):  # whoever parses what is here finds the same, and says so
        while (wanted := header_range(data, size)) is not None:
            start, stop = wanted
            more = await hub.read(place, name, token=token, span=(start, stop - 1), limit=stop - start)
            if not more:
                break
            data += more
    return data


async def _read_config(hub: Reads, place: Place, *, token: str | None) -> Mapping[str, object] | None:
    data = await hub.read(place, BASE_CONFIG, token=token, limit=CONFIG_LIMIT)
    try:
        config = json.loads(data)
    except (RecursionError, ValueError):
        return None
    return config if isinstance(config, dict) else None


async def _read_headers(hub: Reads, place: Place, shards: Mapping[str, int], *, token: str | None) -> list[Header]:
    """Read every shard's header; none where one of them is no safetensors file, or there are too many to ask for."""
    if len(shards) > _SHARDS_LIMIT:
        return []
    turn = asyncio.Semaphore(_AT_ONCE)

    async def read(name: str, size: int) -> Header:
        async with turn:
            return parse_header(await read_start(hub, place, name, size=size, token=token), size)

    try:
        return await asyncio.gather(*(read(name, size) for name, size in shards.items()))
    except HeaderError:
        return []
