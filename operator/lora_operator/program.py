"""The program put together: one queue a kind, the world that passes share, and the order of starting and stopping.

Every resource is listed before the first pass runs, so that no pass takes "not seen yet" for "not there".
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime

from lora_operator import engine_pod, lora_adapter, lora_engine, lora_training_job
from lora_operator.clients import kube as kube_client
from lora_operator.clients.door import Doors
from lora_operator.clients.hub import Hub
from lora_operator.clients.kube import WATCHED, Kube
from lora_operator.events import Recorder
from lora_operator.labels import Key
from lora_operator.loop import Controller
from lora_operator.progress import Endpoint, progress_endpoint
from lora_operator.reporting import Reporter
from lora_operator.server import health_application, listening
from lora_operator.settings import Settings
from lora_operator.store import Store
from lora_operator.watching import Watching, resync, take_in
from lora_operator.world import World

logger = logging.getLogger(__name__)

Pass = Callable[[Key, World], Awaitable[float | None]]


class Program:
    """The operator but for kopf: starts on kopf's start-up, stops on its clean-up."""

    def __init__(self, settings: Settings, *, doors: Doors | None = None, hub: Hub | None = None) -> None:
        self._settings = settings
        self._store = Store()
        self._doors = doors or Doors()
        self._hub = hub or Hub()
        self._stack = contextlib.AsyncExitStack()
        self._tasks: list[asyncio.Task[None]] = []
        self._controllers: dict[str, Controller] = {}
        self.watching = Watching(self._store, self._wake)
        self.world: World | None = None

    async def start(self) -> None:
        """Connect, see everything once, then let the passes run; a start that fails leaves nothing to the next one."""
        try:
            await self._start()
        except BaseException:
            await self.stop()
            raise

    async def _start(self) -> None:
        settings = self._settings
        kube = await kube_client.connect(saw=self.watching.wrote)
        self._stack.push_async_callback(kube.close)
        self._stack.push_async_callback(self._doors.close)
        for resource in WATCHED:
            await take_in(resource, kube=kube, store=self._store, namespaces=settings.watch_namespaces)
        self.world = self._make_world(kube)
        endpoint = await progress_endpoint(self.world)
        self._controllers = self._make_controllers(self.world)
        await self._listen(endpoint)
        self._run(
            resync(
                kube=kube,
                store=self._store,
                namespaces=settings.watch_namespaces,
                seconds=settings.resync_seconds,
                wake=self._wake,
            )
        )
        for controller in self._controllers.values():
            self._run(controller.run())
        for kind in self._controllers:
            for key in self._store.kind(kind):
                self._wake(key)

    async def stop(self) -> None:
        """Stop passes first, then close what they used."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks.clear()
        await self._stack.aclose()

    def _make_world(self, kube: Kube) -> World:
        recorder = Recorder(kube, now=_now)
        return World(
            settings=self._settings,
            store=self._store,
            kube=kube,
            hub=self._hub,
            doors=self._doors,
            recorder=recorder,
            reporter=Reporter(kube, recorder, now=_now),
            wake=self._wake,
            now=_now,
        )

    def _make_controllers(self, world: World) -> dict[str, Controller]:
        workers = self._settings.workers
        passes: dict[str, tuple[Pass, int | None]] = {
            "LoRAEngine": (lora_engine.reconcile, workers),
            "LoRAAdapter": (lora_adapter.reconcile, workers),
            "LoRATrainingJob": (lora_training_job.reconcile, workers),
        }
        controllers = {
            kind: Controller(kind, lambda key, run=run: run(key, world), workers=bound)  # type: ignore[misc]
            for kind, (run, bound) in passes.items()
        }
        pods = Controller("Pod", lambda key: engine_pod.reconcile(key, world, pods.queue.woken(key)), workers=None)
        return controllers | {"Pod": pods}

    async def _listen(self, endpoint: Endpoint | None) -> None:
        health = health_application(ready=lambda: bool(self._controllers), alive=self._alive)
        await self._stack.enter_async_context(listening(health, port=self._settings.metrics_port))
        if endpoint is not None:
            await self._stack.enter_async_context(
                listening(endpoint.application, port=self._settings.progress_port, tls=endpoint.tls)
            )

    def _wake(self, key: Key) -> None:
        controller = self._controllers.get(key.kind)
        if controller is not None:
            controller.queue.add(key)

    def _run(self, coroutine: Awaitable[None]) -> None:
        self._tasks.append(asyncio.ensure_future(coroutine))

    def _alive(self) -> bool:
        return not any(task.done() for task in self._tasks)


def _now() -> datetime:
    return datetime.now(UTC)
