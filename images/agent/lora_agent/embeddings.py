"""The base's own embedding and head, from the Hub, for as long as an adapter's copies of them are compared.

PEFT saves such copies beside a LoRA on embeddings. Nothing is brought for other adapters, nor where the agent has the
base's files beside it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Final

from lora_agent.base import HEADERS_LIMIT, Known
from lora_agent.disk import Disk
from lora_agent.hub import Hub
from lora_operator.adapter import Stored, copied_modules, find_stored, open_directory
from lora_operator.header_reading import read_headers

_PIECE: Final = 4 << 20


@asynccontextmanager
async def beside(place: Path, base: Known, *, hub: Hub, disk: Disk) -> AsyncIterator[Mapping[str, Stored]]:
    """Give where those weights of the base lie that the adapter in *place* has copies of; raises Trouble, NoSpace."""
    if base.shapes is None or base.shapes.stored:
        yield base.shapes.stored if base.shapes else {}
        return
    copied = copied_modules(await asyncio.to_thread(open_directory, place, level="header"))
    if not copied:
        yield {}
        return
    name, token = base.wire.name, base.token
    commit, sizes = await hub.base_files(name, token=token)

    async def read(path: str, start: int, stop: int) -> bytes:
        return await hub.base_span(name, path, commit=commit, token=token, start=start, stop=stop)

    headers = await read_headers(read, sizes, limit=HEADERS_LIMIT)
    there = find_stored({Path(path): header for path, header in headers.items()}, base.wire.config)
    wanted = {module: stored for module, stored in there.items() if module in copied}
    with disk.reserve(sum(stored.size for stored in wanted.values())) as folder:
        brought = {}
        for number, (module, stored) in enumerate(wanted.items()):
            path = folder / str(number)
            with path.open("wb") as file:
                for start in range(stored.start, stored.start + stored.size, _PIECE):
                    stop = min(start + _PIECE, stored.start + stored.size)
                    await asyncio.to_thread(file.write, await read(str(stored.path), start, stop))
            brought[module] = replace(stored, path=path, start=0)
        yield brought
