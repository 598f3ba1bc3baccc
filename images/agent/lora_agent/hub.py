"""The Hub as the agent needs it: one file at one pinned commit, streamed to disk and hashed on the way.

Addresses are `huggingface_hub`'s own; the transfer is aiohttp's, for it can be cancelled and never writes a byte
more than was reserved. Plain HTTP (LFS), so no Xet cache on a read-only root file system.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import ssl
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Final

import aiohttp
from huggingface_hub import hf_hub_url

from lora_agent.backoff import Ends, Trouble
from lora_agent.bodies import read_up_to
from lora_operator.protocol.manifest import File, HubSource

_CHUNK_BYTES: Final = 4 * 1024 * 1024
_SLOWEST_BYTES_PER_SECOND: Final = 100_000
_LISTING_LIMIT: Final = 4 * 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class _Fields:
    """What to change where the Hub refuses."""

    repo: str
    revision: str
    token: str


_ADAPTER: Final = _Fields(
    repo="spec.source.hub.repo",
    revision="spec.source.hub.revision",
    token="spec.source.hub.tokenSecretRef",  # noqa: S106 - a field's name
)
_BASE: Final = _Fields(
    repo="spec.baseModel of the LoRAEngine",
    revision="spec.baseModel of the LoRAEngine",
    # The base is read with each token that adapters brought.
    token="spec.source.hub.tokenSecretRef of an adapter of this engine",  # noqa: S106 - a field's name
)


def session() -> aiohttp.ClientSession:
    """Return a session that goes through a proxy where the environment names one."""
    # aiohttp's own context is as old as its import, and knows of no certificates that were added since.
    return aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=ssl.create_default_context()), trust_env=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class Hub:
    """A Hub, or a mirror of it, over one HTTP session."""

    session: aiohttp.ClientSession
    endpoint: str

    async def download(self, source: HubSource, file: File, *, token: str | None, into: Path) -> None:
        """Bring one file, exactly as the manifest gives its size and sha256; raises Trouble."""
        try:
            url = hf_hub_url(source.repo, file.path, revision=source.commit, endpoint=self.endpoint)
        except ValueError as error:
            message = f"{source.repo} is no repository's name: correct {_ADAPTER.repo}"
            raise Trouble("RepositoryNotFound", message, ends=Ends.REFUSED) from error
        headers = _headers(token, fields=_ADAPTER)
        where = f"{file.path} of {source.repo} at {source.commit[:12]}"
        seconds = 300 + file.size / _SLOWEST_BYTES_PER_SECOND
        timeout = aiohttp.ClientTimeout(total=seconds, sock_connect=30, sock_read=60)
        try:
            async with self.session.get(url, headers=headers, timeout=timeout) as response:
                await _raise_for(response, where=where, token=token, fields=_ADAPTER)
                found = await _write(response, into, limit=file.size)
        except TimeoutError as error:
            raise _unavailable(f"{where}: the Hub is too slow to answer") from error
        except aiohttp.ClientError as error:
            # The text of the error may hold a signed address.
            raise _unavailable(f"{where}: {type(error).__name__} while talking to the Hub") from error
        if found != file.sha256:
            raise Trouble(
                "DigestMismatch",
                f"{where} has sha256 {found[:12]}..., its metadata says {file.sha256[:12]}...: the file was changed "
                f"without a commit, or cut on the way; publish it again and point spec.source.hub.revision there",
                ends=Ends.CONTENT,
            )

    async def base_config(self, model: str, *, token: str | None) -> bytes:
        """Return a base's config.json from its default branch; raises Trouble."""
        return await self._read_base(_base_url(self, model, "config.json"), f"config.json of {model}", token, {})

    async def base_files(self, model: str, *, token: str | None) -> tuple[str, dict[str, int]]:
        """Return the commit of a base's default branch, and its files' sizes; raises Trouble."""
        where = f"the list of files of {model}"
        url = f"{self.endpoint}/api/models/{model}/revision/main?blobs=true"
        try:
            listing = json.loads(await self._read_base(url, where, token, {}))
            return str(listing["sha"]), {str(file["rfilename"]): int(file["size"]) for file in listing["siblings"]}
        except (ValueError, KeyError, TypeError) as error:
            raise _unavailable(f"{where} is none that a Hub gives") from error

    async def base_span(  # noqa: PLR0913 - which bytes of which file of which commit
        self, model: str, path: str, *, commit: str, token: str | None, start: int, stop: int
    ) -> bytes:
        """Return the bytes [start, stop) of a base's file; raises Trouble."""
        asked = {"Range": f"bytes={start}-{stop - 1}"}
        where = f"{path} of {model}"
        data = await self._read_base(_base_url(self, model, path, commit), where, token, asked, limit=stop - start)
        return data[: stop - start]

    async def _read_base(
        self, url: str, where: str, token: str | None, asked: dict[str, str], *, limit: int = _LISTING_LIMIT
    ) -> bytes:
        headers = _headers(token, fields=_BASE) | asked
        timeout = aiohttp.ClientTimeout(total=60, sock_connect=30)
        try:
            async with self.session.get(url, headers=headers, timeout=timeout) as response:
                await _raise_for(response, where=where, token=token, fields=_BASE)
                return await read_up_to(response, limit)
        except TimeoutError as error:
            raise _unavailable(f"{where}: the Hub is too slow to answer") from error
        except aiohttp.ClientError as error:
            raise _unavailable(f"{where}: {type(error).__name__} while talking to the Hub") from error


def _base_url(hub: Hub, model: str, path: str, revision: str | None = None) -> str:
    try:
        return hf_hub_url(model, path, revision=revision, endpoint=hub.endpoint)
    except ValueError as error:
        message = f"{model} is no model's name on the Hub: set {_BASE.repo} to its base's"
        raise Trouble("BaseNotReadable", message, ends=Ends.REFUSED) from error


async def _write(response: aiohttp.ClientResponse, into: Path, *, limit: int) -> str:
    """Write the body and return its sha256; a body longer than `limit` ends there, and so does not match."""
    digest = hashlib.sha256()
    written = 0
    with into.open("wb") as file:
        async for chunk in response.content.iter_chunked(_CHUNK_BYTES):
            digest.update(chunk)
            written += len(chunk)
            if written > limit:
                break
            await asyncio.to_thread(file.write, chunk)
    return digest.hexdigest()


def _headers(token: str | None, *, fields: _Fields) -> dict[str, str]:
    # Not huggingface_hub's build_hf_headers: it asks the Hub something first, and blocks the loop meanwhile.
    headers = {"User-Agent": f"lora-operator-agent/{version('lora-operator')}"}
    if not token:
        return headers
    if not (token.isascii() and token.isprintable()):
        message = f"what the Secret of {fields.token} holds is no token: it has characters that no header can carry"
        raise Trouble("TokenMalformed", message, ends=Ends.REFUSED)
    return headers | {"Authorization": f"Bearer {token}"}


async def _raise_for(response: aiohttp.ClientResponse, *, where: str, token: str | None, fields: _Fields) -> None:
    """Turn the Hub's refusal into a trouble with the reason that a LoRAAdapter shows."""
    status, code = response.status, response.headers.get("X-Error-Code", "")
    if status < 400:
        return
    if status in {408, 425, 429} or status >= 500:
        wait = response.headers.get("Retry-After", "")
        raise _unavailable(f"{where}: the Hub answers {status}", at_least=float(wait) if wait.isdigit() else 0.0)
    reason, message = _refusal(status, code, token=token, fields=fields)
    raise Trouble(reason, f"{where}: {message}", ends=Ends.REFUSED)


def _refusal(status: int, code: str, *, token: str | None, fields: _Fields) -> tuple[str, str]:
    """Return the reason, and what happened with the field to change."""
    if status in {401, 403}:
        have = "the token does not give access: ask for it, or change" if token else "there is no token: set"
        return "HubUnauthorized", f"the Hub answers {status}; {have} {fields.token}"
    if code == "RevisionNotFound":
        return "RevisionNotFound", f"the Hub has no such commit (any more): change {fields.revision}"
    if code == "EntryNotFound":
        return "MissingFile", f"the Hub has no such file in this commit: publish it, and change {fields.revision}"
    if status == 404:
        return "RepositoryNotFound", f"no such repository, or hidden: change {fields.repo} or {fields.token}"
    return "HubRefused", f"the Hub answers {status}: see {fields.repo} and {fields.token}"


def _unavailable(message: str, *, at_least: float = 0.0) -> Trouble:
    return Trouble("HubUnavailable", message, ends=Ends.TRANSIENT, at_least_seconds=min(at_least, 600.0))
