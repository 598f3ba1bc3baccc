"""Plain HTTP for tests of servers: an answer that has been read, so that no connection stays open behind it."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import aiohttp


@dataclass(frozen=True, kw_only=True, slots=True)
class Answer:
    status: int
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


async def ask(client: aiohttp.ClientSession, method: str, url: str, **options: Any) -> Answer:
    async with client.request(method, url, **options) as response:
        return Answer(status=response.status, headers=response.headers, body=await response.read())
