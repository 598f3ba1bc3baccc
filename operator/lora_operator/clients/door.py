"""The operator's side of the agent's door: TLS to a certificate that is pinned, one bearer token an engine."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from typing import Final

import aiohttp
from pydantic import ValidationError

from lora_operator import metrics
from lora_operator.protocol.door import PORT, Base, Report
from lora_operator.protocol.manifest import Shard

TIMEOUT: Final = 10.0
POLL_SECONDS: Final = 50


class DoorError(Exception):
    """An agent did not answer as it should; the text never holds the token."""


@dataclass(frozen=True, slots=True)
class Access:
    """How to reach the agents of one engine: the certificate to pin (PEM) and the token."""

    certificate: str
    token: str

    def __repr__(self) -> str:
        return "Access(...)"


class Doors:
    """Calls to agents. One session for all; a TLS context a certificate."""

    def __init__(self, *, port: int = PORT) -> None:
        self._port = port
        self._session: aiohttp.ClientSession | None = None
        self._contexts: dict[str, ssl.SSLContext] = {}

    async def close(self) -> None:
        """Close all connections."""
        if self._session is not None:
            await self._session.close()

    async def push(self, address: str, access: Access, shard: Shard) -> None:
        """Hand a shard to an agent as it was written."""
        await self._call("push", "PUT", address, f"/v1/shards/{shard.index}", access, body=shard.to_json())

    async def report(self, address: str, access: Access, *, heard: Report | None, wait: int = POLL_SECONDS) -> Report:
        """Wait up to `wait` seconds for a report newer than the one `heard`; return the newest."""
        known = f"instance={heard.instance}&after={heard.sequence}&" if heard is not None else ""
        path = f"/v1/report?{known}wait={wait}"
        text = await self._call("report", "GET", address, path, access, timeout=wait + TIMEOUT)
        try:
            return Report.model_validate_json(text)
        except ValidationError as error:
            raise DoorError(f"the agent at {address} speaks another version: {error.error_count()} errors") from None

    async def base(self, address: str, access: Access) -> Base:
        """Return what an agent read of its engine's base model."""
        return Base.model_validate_json(await self._call("base", "GET", address, "/v1/base", access))

    async def _call(  # noqa: PLR0913 - one request
        self,
        call: str,
        method: str,
        address: str,
        path: str,
        access: Access,
        *,
        body: str | None = None,
        timeout: float = TIMEOUT,
    ) -> str:
        if self._session is None:
            self._session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0))
        host = f"[{address}]" if ":" in address else address
        result = "error"
        try:
            async with self._session.request(
                method,
                f"https://{host}:{self._port}{path}",
                data=body,
                headers={"Authorization": f"Bearer {access.token}"},
                ssl=self._context(access.certificate),
                timeout=aiohttp.ClientTimeout(total=timeout, sock_connect=TIMEOUT),
                allow_redirects=False,
            ) as answer:
                text = await answer.text()
                result = str(answer.status)
                if answer.status >= 300:
                    raise DoorError(f"the agent at {address} answered {answer.status}: {text[:200]}")
                return text
        except (aiohttp.ClientError, TimeoutError) as error:
            raise DoorError(f"the agent at {address} can't be reached: {type(error).__name__}") from error
        finally:
            metrics.DOOR_REQUESTS.labels(call, result).inc()

    def _context(self, certificate: str) -> ssl.SSLContext:
        """Trust this one certificate and nothing else; its names don't matter, for pods are called by address."""
        context = self._contexts.get(certificate)
        if context is None:
            context = ssl.create_default_context(cadata=certificate)
            context.check_hostname = False
            self._contexts[certificate] = context
        return context
