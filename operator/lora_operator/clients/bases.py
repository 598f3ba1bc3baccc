"""Bases as the Hub has them: read once a commit, however many adapters are to be judged against one of them.

Above `hub_reading.py`, for passes; a reading takes a request a shard, which is many where the model is large.
"""

from __future__ import annotations

import asyncio
from typing import Final
from weakref import WeakValueDictionary

from lora_operator.clients.hub import Hub, Place
from lora_operator.clients.hub_reading import RemoteBase, read_base

_KEPT: Final = 16
"""Bases that are remembered: the shapes of one may be megabytes."""

_Commit = tuple[str, str]


class Bases:
    """Remembers what was read, by repository and commit; who asks for the same meanwhile waits for the one reading."""

    def __init__(self) -> None:
        self._known: Final[dict[_Commit, RemoteBase]] = {}
        self._turns: Final[WeakValueDictionary[_Commit, asyncio.Lock]] = WeakValueDictionary()

    async def read(self, hub: Hub, place: Place, *, token: str | None) -> RemoteBase:
        """Return a base's config and shapes at the commit that the place stands for now; raises as `Hub.resolve`."""
        snapshot = await hub.resolve(place, token=token)
        commit = (snapshot.repo, snapshot.commit)
        async with self._turns.setdefault(commit, asyncio.Lock()):
            if commit not in self._known:
                self._known[commit] = await read_base(hub, place, snapshot, token=token)
                if len(self._known) > _KEPT:
                    del self._known[next(iter(self._known))]
            return self._known[commit]
