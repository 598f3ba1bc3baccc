"""The engine's base model, as far as the agent can read it: what adapters are verified against, and `/v1/base`.

From the directory that the engine serves, where the agent has it, with the shapes of its safetensors headers; else
`config.json` from the Hub at the base's id, with each token that is here.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lora_agent.backoff import Ends, Trouble
from lora_agent.hub import Hub
from lora_operator import adapter
from lora_operator.protocol import door


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
            config = _parse(await hub.config(name, token=token), where=f"config.json of {name}")
        except Trouble as trouble:
            refusals.append(trouble)
        else:
            return Known(wire=door.Base(name=name, config=config), shapes=adapter.base_from_config(config))
    raise refusals[0]


def _from_directory(name: str, path: Path) -> Known:
    try:
        config = _parse((path / "config.json").read_bytes(), where=str(path / "config.json"))
        shapes = adapter.base_from_directory(path)
    except (OSError, ValueError) as error:
        raise Trouble("BaseNotReadable", f"{path}: {error}", ends=Ends.REFUSED) from error
    modules = {module: tuple(shape) for module, shape in shapes.modules.items()} if shapes else None
    return Known(wire=door.Base(name=name, config=config, shapes=modules), shapes=shapes)


def _parse(content: bytes, *, where: str) -> Mapping[str, Any]:
    try:
        config = json.loads(content)
    except ValueError as error:
        raise Trouble("BaseNotReadable", f"{where}: {error}", ends=Ends.REFUSED) from error
    if not isinstance(config, dict):
        raise Trouble("BaseNotReadable", f"{where} is not a JSON object", ends=Ends.REFUSED)
    return config
