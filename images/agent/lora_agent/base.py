"""The engine's base model, as far as the agent can read it: what adapters are verified against, and `/v1/base`.

From the directory that the engine serves, where the agent has it, with the shapes of its safetensors headers; else
`config.json` from the Hub at the base's id, with each token that is here, and the headers only where the config tells
no shapes: a request a shard, from every pod, is much.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from lora_agent.backoff import Ends, Trouble
from lora_agent.hub import Hub
from lora_operator import adapter
from lora_operator.header_reading import read_shapes
from lora_operator.protocol import door

_HEADERS_LIMIT: Final = 16 << 20
"""Parsed, headers take several times their bytes, and the agent has little memory."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """What was read: `wire` for the operator, `shapes` for the adapter library (None: a family it doesn't know)."""

    wire: door.Base
    shapes: adapter.Base | None


async def read_base(*, name: str, path: Path | None, hub: Hub, tokens: Iterable[str | None]) -> Known:
    """Read the base; raises Trouble where it can't be read."""
    if path is not None and (path / "config.json").is_file():
        return await asyncio.to_thread(_from_directory, name, path)
    refusals: list[Trouble] = []
    for token in dict.fromkeys((*tokens, None)):
        try:
            config = _parse(await hub.base_config(name, token=token), where=f"config.json of {name}")
            shapes = adapter.base_from_config(config)
            return _known(name, config, None, shapes) if shapes else await _from_headers(name, config, hub, token)
        except Trouble as trouble:
            refusals.append(trouble)
    raise refusals[0]


async def _from_headers(name: str, config: Mapping[str, Any], hub: Hub, token: str | None) -> Known:
    commit, sizes = await hub.base_files(name, token=token)

    async def read(path: str, start: int, stop: int) -> bytes:
        return await hub.base_span(name, path, commit=commit, token=token, start=start, stop=stop)

    shapes = await read_shapes(read, sizes, config, limit=_HEADERS_LIMIT)
    return _known(name, config, shapes, shapes)


def _from_directory(name: str, path: Path) -> Known:
    try:
        config = _parse((path / "config.json").read_bytes(), where=str(path / "config.json"))
        shapes = adapter.base_from_directory(path)
    except (OSError, ValueError) as error:
        raise Trouble("BaseNotReadable", f"{path}: {error}", ends=Ends.REFUSED) from error
    return _known(name, config, shapes, shapes)


def _known(name: str, config: Mapping[str, Any], read: adapter.Base | None, shapes: adapter.Base | None) -> Known:
    """Return what was read; `read` are the shapes that the operator can't derive from the config itself."""
    modules = {module: tuple(shape) for module, shape in read.modules.items()} if read else None
    return Known(wire=door.Base(name=name, config=dict(config), shapes=modules), shapes=shapes)


def _parse(content: bytes, *, where: str) -> Mapping[str, Any]:
    try:
        config = json.loads(content)
    except ValueError as error:
        raise Trouble("BaseNotReadable", f"{where}: {error}", ends=Ends.REFUSED) from error
    if not isinstance(config, dict):
        raise Trouble("BaseNotReadable", f"{where} is not a JSON object", ends=Ends.REFUSED)
    return config
