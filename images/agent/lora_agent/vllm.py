"""vLLM as an engine: its HTTP API, its refusals in all their shapes, and its metrics.

Checked against a real vLLM, call by call: see the engine contract suite of the tests.
"""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Final

import aiohttp

from lora_agent import refusals
from lora_agent.bodies import CutError, lines_of, read_up_to
from lora_agent.engine import Health, NoAnswer, Refusal, View

LOOK_SECONDS: Final = 5.0
CHANGE_SECONDS: Final = 60.0
PROBE_SECONDS: Final = 120.0
MESSAGE_LIMIT: Final = 900
"""vLLM's refusals can be megabytes: they list every unknown name. This much is told."""
_BODY_LIMIT: Final = 32 * 1024 * 1024


class VLLM:
    """vLLM's HTTP API as an Engine, checked against 0.32."""

    def __init__(self, session: aiohttp.ClientSession, url: str, *, api_key_file: Path | None = None) -> None:
        self._session = session
        self._url = url.rstrip("/")
        self._api_key_file = api_key_file

    async def look(self) -> View:
        """Return what the engine has; never raises."""
        try:
            await self._call("GET", "/health", limit=LOOK_SECONDS)
        except NoAnswer as error:
            return View(health=Health.DOWN if error.refused else Health.SILENT, problem=str(error))
        except Refusal as error:
            return View(health=Health.SILENT, problem=f"the engine answers /health with {error}")
        try:
            listing = json.loads(await self._call("GET", "/v1/models", limit=LOOK_SECONDS))
            models = [(str(card["id"]), card.get("parent"), str(card.get("root") or "")) for card in listing["data"]]
        except NoAnswer as error:
            return View(health=Health.DOWN if error.refused else Health.UNLISTED, problem=str(error))
        except Refusal as error:
            trouble = refusals.of_listing(error)
            return View(health=Health.UNLISTED, reason=trouble.reason, problem=trouble.message)
        except (ValueError, KeyError, TypeError, AttributeError):
            return View(health=Health.UNLISTED, problem="/v1/models is not the list of models that vLLM gives")
        return View(
            health=Health.UP,
            served=tuple(name for name, parent, _ in models if parent is None),
            adapters={name: root for name, parent, root in models if parent is not None},
        )

    async def version(self) -> str:
        """Return the engine's version, empty where it doesn't say."""
        try:
            return str(json.loads(await self._call("GET", "/version", limit=LOOK_SECONDS))["version"])[:64]
        except (NoAnswer, Refusal, ValueError, KeyError, TypeError):
            return ""

    async def load(self, name: str, path: Path) -> None:
        """Load the adapter in `path` under `name`."""
        body = {"lora_name": name, "lora_path": str(path)}
        await self._call("POST", "/v1/load_lora_adapter", body, limit=CHANGE_SECONDS)

    async def unload(self, name: str) -> None:
        """Make the engine forget the name; a name that it doesn't have is no error."""
        try:
            await self._call("POST", "/v1/unload_lora_adapter", {"lora_name": name}, limit=CHANGE_SECONDS)
        except Refusal as refusal:
            if refusal.status != 404:
                raise

    async def probe(self, name: str) -> None:
        """Return once the adapter has answered a request for one token."""
        body = {"model": name, "prompt": "Hello", "max_tokens": 1, "temperature": 0}
        await self._call("POST", "/v1/completions", body, limit=PROBE_SECONDS)

    async def busy(self) -> frozenset[str] | None:
        """Return the adapters that requests are running on or waiting for; None where the engine doesn't tell.

        What was cut tells nothing: the word that an adapter is asked may have been in the rest.
        """
        metrics = Metrics()
        try:
            async with self._asked("GET", "/metrics", limit=LOOK_SECONDS) as response:
                async for line in lines_of(response, _BODY_LIMIT):
                    metrics.take(line)
        except (NoAnswer, Refusal, CutError, ValueError):
            return None
        return metrics.busy

    async def _call(self, method: str, path: str, body: dict[str, Any] | None = None, *, limit: float) -> str:
        async with self._asked(method, path, body, limit=limit) as response:
            return (await read_up_to(response, _BODY_LIMIT)).decode(errors="replace")

    @contextlib.asynccontextmanager
    async def _asked(
        self, method: str, path: str, body: dict[str, Any] | None = None, *, limit: float
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """Give a good answer whose body is still to be read, within the limit too; raises Refusal or NoAnswer."""
        timeout = aiohttp.ClientTimeout(total=limit)
        try:
            request = self._session.request(
                method, f"{self._url}{path}", json=body, headers=self._headers(), timeout=timeout
            )
            async with request as response:
                if response.status >= 400:
                    text = (await read_up_to(response, _BODY_LIMIT)).decode(errors="replace")
                    raise Refusal(response.status, told(text))
                yield response
        except aiohttp.ClientConnectorError as error:
            refused = isinstance(error.os_error, ConnectionRefusedError)
            raise NoAnswer(f"{path}: {error.os_error}", refused=refused) from error
        except TimeoutError as error:
            raise NoAnswer(f"{path}: no answer within {limit:.0f} s") from error
        except aiohttp.ClientError as error:
            raise NoAnswer(f"{path}: {type(error).__name__}: {error}") from error

    def _headers(self) -> dict[str, str]:
        """Return the engine's key, read anew: kubelet may bring it late, and change it."""
        if self._api_key_file is None:
            return {}
        try:
            key = self._api_key_file.read_bytes().decode(errors="replace").strip()
        except OSError:
            return {}
        # What no header can carry is no key: the engine says then that it lacks one.
        return {"Authorization": f"Bearer {key}"} if key.isascii() and key.isprintable() else {}


def told(text: str) -> str:
    """Return the message of an error answer: nested, flat, FastAPI's own, or plain text; cut and printable."""
    message: object = text
    try:
        answer = json.loads(text)
    except ValueError:
        answer = None
    if isinstance(answer, dict):
        inner = answer.get("error")
        if isinstance(inner, dict):
            message = inner.get("message") or text
        else:
            message = inner or answer.get("message") or answer.get("detail") or text
    clean = "".join(character if character.isprintable() else " " for character in str(message)[: MESSAGE_LIMIT + 1])
    return clean if len(clean) <= MESSAGE_LIMIT else f"{clean[: MESSAGE_LIMIT - 3]}..."


_LORA_INFO: Final = re.compile(r"vllm:lora_requests_info\{(?P<labels>.*)\} (?P<value>\S+)")
_LABEL: Final = re.compile(r'(\w+)="([^"]*)"')
_REQUESTS: Final = re.compile(r"vllm:num_requests_(?:running|waiting)(?:\{[^}]*\})? (?P<value>\S+)")


class Metrics:
    """What vLLM's metrics say of requests, read line by line: they grow with every combination of adapters ever asked.

    Each combination stays as a series whose value is the time it was last true: the latest counts.
    """

    def __init__(self) -> None:
        self._requests: list[float] = []
        self._latest: tuple[float, str] | None = None

    def take(self, line: str) -> None:
        """Read one line; raises ValueError where a value is no number."""
        if requests := _REQUESTS.fullmatch(line):
            self._requests.append(float(requests["value"]))
        elif info := _LORA_INFO.fullmatch(line):
            series = (float(info["value"]), info["labels"])
            self._latest = series if self._latest is None else max(self._latest, series)

    @property
    def busy(self) -> frozenset[str] | None:
        """The adapters in the latest word on running and waiting requests; None without such a word."""
        if self._requests and not any(self._requests):
            return frozenset()
        if self._latest is None:
            return None
        labels = dict(_LABEL.findall(self._latest[1]))
        names = f"{labels.get('running_lora_adapters', '')},{labels.get('waiting_lora_adapters', '')}"
        return frozenset(name for name in names.split(",") if name)


def busy_adapters(metrics: str) -> frozenset[str] | None:
    """Return the adapters that whole metrics say are asked; None where they don't tell."""
    read = Metrics()
    for line in metrics.split("\n"):
        read.take(line)
    return read.busy
