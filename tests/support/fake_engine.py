"""A vLLM that answers as vLLM 0.32 does where adapters are concerned, in milliseconds and without a model.

    async with fake_engine.serve() as engine:      # engine.url, engine.adapters, engine.restart(), engine.fault(...)
    python -m support.fake_engine --port 8000      # the same as a program

`support.engine_contract` holds it to the real one, call by call. An adapter's answers are a function of its weights and
the prompt, so they differ from the base's and between versions.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import hashlib
import itertools
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from aiohttp import web

from support import fake_adapter

VERSION = "0.32.0"


@dataclass(kw_only=True)
class Fault:
    """The next `times` requests to a path wait, then go wrong or on; -1 is until `clear_faults`."""

    path: str
    status: int | None = None
    message: str = "the fake engine was told to fail"
    delay_seconds: float = 0.0
    hang: bool = False
    times: int = 1


@dataclass(kw_only=True)
class Engine:
    """A running fake engine, and the levers that a test has."""

    served: tuple[str, ...] = ("base",)
    base_model: str = "tiny/llama"
    max_lora_rank: int = 16
    max_loras: int = 4
    api_key: str | None = None
    runtime_updating: bool = True
    nested_errors: bool = True
    """Errors as `{"error": {...}}`, as today's vLLM; False: flat, as older ones."""
    version: str = VERSION
    host: str = "127.0.0.1"
    port: int = 0
    adapters: dict[str, str] = field(default_factory=dict)
    """What is loaded: name -> path."""
    requests: list[tuple[str, str, Mapping[str, Any]]] = field(default_factory=list)
    """What was asked: method, path, body."""
    unloaded: list[tuple[str, bool]] = field(default_factory=list)
    """What was unloaded, and whether its files were still there."""
    starts: int = 0
    running: dict[str, int] = field(default_factory=dict)
    """Requests being answered, by adapter name."""
    in_flight: dict[str, int] = field(default_factory=dict)
    """Requests that are being handled, by path."""
    _faults: list[Fault] = field(default_factory=list)
    _cleared: asyncio.Event = field(default_factory=asyncio.Event)
    _runner: web.AppRunner | None = None
    _dying: asyncio.Task[None] | None = None
    _lora_ids: itertools.count[int] = field(default_factory=lambda: itertools.count(1))

    @property
    def url(self) -> str:
        """Where it answers."""
        return f"http://{self.host}:{self.port}"

    def calls(self, path: str) -> list[Mapping[str, Any]]:
        """Return the bodies of all requests to a path."""
        return [body for _, asked, body in self.requests if asked == path]

    def fault(self, path: str, **how: Any) -> None:
        """Make the next requests to a path go wrong; see `Fault`."""
        self._faults.append(Fault(path=path, **how))

    def clear_faults(self) -> None:
        """Heal everything, and let go what hangs."""
        self._faults.clear()
        cleared, self._cleared = self._cleared, asyncio.Event()
        cleared.set()

    async def start(self) -> None:
        """Come up with nothing loaded, on the port of before where there was one."""
        self.adapters.clear()
        self.running.clear()
        self.starts += 1
        app = web.Application(middlewares=[self._observe], client_max_size=2**24)
        app.add_routes(self._routes())
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.2)
        await self._runner.setup()
        await web.TCPSite(self._runner, self.host, self.port).start()
        self.port = int(self._runner.addresses[0][1])

    async def stop(self) -> None:
        """Go away: connections are refused."""
        self.clear_faults()
        runner, self._runner = self._runner, None
        if runner is not None:
            await runner.cleanup()

    async def died(self) -> None:
        """Wait until it is down of what it did to itself."""
        if self._dying is not None:
            await self._dying

    async def restart(self) -> None:
        """Crash and come back: whatever was loaded is forgotten."""
        await self.stop()
        await self.start()

    def _routes(self) -> list[web.RouteDef]:
        routes = [
            web.get("/health", self._health),
            web.get("/ping", self._health),
            web.get("/version", self._version),
            web.get("/metrics", self._metrics),
            web.get("/v1/models", self._models),
            web.post("/v1/completions", self._completions),
            web.post("/v1/chat/completions", self._completions),
        ]
        if self.runtime_updating:
            routes += [
                web.post("/v1/load_lora_adapter", self._load),
                web.post("/v1/unload_lora_adapter", self._unload),
            ]
        return routes

    @web.middleware
    async def _observe(
        self, request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        """Log the request, play the faults, look at the key, and answer what has no route as FastAPI does."""
        raw = await request.read()
        with contextlib.suppress(ValueError):
            self.requests.append((request.method, request.path, json.loads(raw or b"{}")))
        self.in_flight[request.path] = self.in_flight.get(request.path, 0) + 1
        try:
            failure = await self._play_fault(request.path)
            return failure if failure is not None else await self._handle(request, handler)
        finally:
            self.in_flight[request.path] -= 1

    async def _handle(
        self, request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        if self.api_key and request.path.startswith("/v1") and not self._has_key(request):
            return web.json_response({"error": "Unauthorized"}, status=401)
        try:
            return await handler(request)
        except web.HTTPNotFound:
            return web.json_response({"detail": "Not Found"}, status=404)

    async def _play_fault(self, path: str) -> web.Response | None:
        fault = next((fault for fault in self._faults if fault.path == path), None)
        if fault is None:
            return None
        fault.times -= fault.times > 0
        if fault.times == 0:
            self._faults.remove(fault)
        with contextlib.suppress(TimeoutError):
            if fault.hang or fault.delay_seconds:
                async with asyncio.timeout(None if fault.hang else fault.delay_seconds):
                    await self._cleared.wait()
        return self._error(fault.status, fault.message, "InternalServerError") if fault.status else None

    def _has_key(self, request: web.Request) -> bool:
        return request.headers.get("Authorization") == f"Bearer {self.api_key}"

    async def _health(self, _: web.Request) -> web.Response:
        return web.Response()

    async def _version(self, _: web.Request) -> web.Response:
        return web.json_response({"version": self.version})

    async def _models(self, _: web.Request) -> web.Response:
        base = [self._card(name, root=self.base_model, parent=None) for name in self.served]
        loras = [self._card(name, root=path, parent=self.served[0]) for name, path in self.adapters.items()]
        return web.json_response({"object": "list", "data": base + loras})

    def _card(self, name: str, *, root: str, parent: str | None) -> dict[str, Any]:
        return {
            "id": name,
            "object": "model",
            "created": int(time.time()),
            "owned_by": "vllm",
            "root": root,
            "parent": parent,
            "max_model_len": 256 if parent is None else None,
            "permission": [],
        }

    async def _metrics(self, _: web.Request) -> web.Response:
        names = ",".join(sorted(name for name, count in self.running.items() if count and name in self._known()))
        total = sum(self.running.values())
        labels = f'max_lora="{self.max_loras}",running_lora_adapters="{names}",waiting_lora_adapters="{names}"'
        lines = [
            f'vllm:num_requests_running{{engine="0",model_name="{self.served[0]}"}} {total:.1f}',
            f'vllm:num_requests_waiting{{engine="0",model_name="{self.served[0]}"}} 0.0',
            f"vllm:lora_requests_info{{{labels}}} {time.time()!r}",
        ]
        return web.Response(text="\n".join(lines) + "\n")

    def _known(self) -> set[str]:
        return set(self.running) - set(self.served)

    async def _load(self, request: web.Request) -> web.Response:
        if request.content_type != "application/json":
            message = "1 validation error:\n  Unsupported Media Type: Only 'application/json' is allowed"
            return self._error(400, message, "Bad Request")
        body = await request.json()
        if problem := _validation(body, "lora_name", "lora_path"):
            return self._error(400, problem, "Bad Request")
        name, path = body["lora_name"], body["lora_path"]
        if not name or not path:
            return self._invalid("Both 'lora_name' and 'lora_path' must be provided.")
        if name in self.served:
            return self._invalid(f"The lora adapter '{name}' conflicts with a served base model.")
        if name in self.adapters and not body.get("load_inplace", False):
            return self._invalid(
                f"The lora adapter '{name}' has already been loaded. If you want to load the adapter in place, "
                "set 'load_inplace' to True."
            )
        try:
            fake_adapter.check(Path(path), max_lora_rank=self.max_lora_rank)
        except fake_adapter.NotThere:
            return self._error(404, f"Loading lora {name} failed: No adapter found for {path}", "NotFoundError")
        except fake_adapter.RefusedError as refusal:
            # With workers in processes of their own, vLLM wraps the reason in: Worker failed with error '...'
            return self._error(500, f"Call to add_lora method failed: {refusal}", "InternalServerError")
        self.adapters[name] = path
        return web.Response(text=f"Success: LoRA adapter '{name}' added successfully.")

    async def _unload(self, request: web.Request) -> web.Response:
        body = await request.json()
        if problem := _validation(body, "lora_name"):
            return self._error(400, problem, "Bad Request")
        name = body["lora_name"]
        if name not in self.adapters:
            return self._error(404, f"The lora adapter '{name}' cannot be found.", "NotFoundError")
        self.unloaded.append((name, fake_adapter.is_there(self.adapters.pop(name))))
        return web.Response(text=f"Success: LoRA adapter '{name}' removed successfully.")

    async def _completions(self, request: web.Request) -> web.Response:
        body = await request.json()
        model = body.get("model") or self.served[0]
        if model not in self.served and model not in self.adapters:
            return self._error(
                404, f"The model `{model}` does not exist. Valid aliases: {', '.join(self.served)}.", "NotFoundError"
            )
        path = self.adapters.get(model)
        if path is not None and not fake_adapter.is_there(path):
            # The real one dies of this once its cache has lost the adapter; this one has no cache.
            self._dying = asyncio.create_task(self.stop())
            return self._error(500, "EngineCore encountered an issue.", "InternalServerError")
        self.running[model] = self.running.get(model, 0) + 1
        try:
            await asyncio.sleep(float(body.get("fake_seconds", 0)))
        finally:
            self.running[model] -= 1
        prompt = body.get("prompt") if "prompt" in body else body.get("messages")
        text = _answer(prompt, path)
        chat = request.path.endswith("chat/completions")
        choice = {"message": {"role": "assistant", "content": text}} if chat else {"text": text}
        tokens = int(body.get("max_tokens") or 16)
        return web.json_response(
            {
                "id": f"cmpl-{next(self._lora_ids)}",
                "object": "chat.completion" if chat else "text_completion",
                "created": int(time.time()),
                "model": model,
                "choices": [{"index": 0, "finish_reason": "length", "logprobs": None, **choice}],
                "usage": {"prompt_tokens": 1, "completion_tokens": tokens, "total_tokens": 1 + tokens},
            }
        )

    def _invalid(self, message: str) -> web.Response:
        return self._error(400, message, "InvalidUserInput")

    def _error(self, status: int, message: str, kind: str) -> web.Response:
        inner = {"message": message, "type": kind, "param": None, "code": status}
        answer = {"error": inner} if self.nested_errors else {"object": "error", **inner}
        return web.json_response(answer, status=status)


def _validation(body: Mapping[str, Any], *names: str) -> str:
    """Return pydantic's complaint as vLLM puts it, empty where the body is right."""
    for name in names:
        if name not in body:
            return f"1 validation error:\n  {{'type': 'missing', 'loc': 'body.{name}', 'msg': 'Field required'}}"
        if not isinstance(body[name], str):
            return (
                f"1 validation error:\n  {{'type': 'string_type', 'loc': 'body.{name}', "
                "'msg': 'Input should be a valid string'}"
            )
    return ""


def _answer(prompt: object, path: str | None) -> str:
    weights = fake_adapter.fingerprint(Path(path)) if path is not None else "base"
    return " " + hashlib.sha256(f"{weights}:{json.dumps(prompt)}".encode()).hexdigest()[:16]


@contextlib.asynccontextmanager
async def serve(**settings: Any) -> AsyncIterator[Engine]:
    """Run a fake engine while the context is open; the settings are `Engine`'s fields."""
    engine = Engine(**settings)
    await engine.start()
    try:
        yield engine
    finally:
        await engine.stop()


async def _run(arguments: argparse.Namespace) -> None:
    async with serve(
        host=arguments.host,
        port=arguments.port,
        max_lora_rank=arguments.max_lora_rank,
        served=tuple(arguments.served_model_name),
    ):
        await asyncio.Event().wait()


def main() -> None:
    """Run it as a program."""
    parser = argparse.ArgumentParser(prog="python -m support.fake_engine")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--max-lora-rank", type=int, default=16)
    parser.add_argument("--served-model-name", nargs="+", default=["base"])
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(_run(parser.parse_args()))


if __name__ == "__main__":
    main()
