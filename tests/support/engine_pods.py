"""Plays scheduler and kubelet for the pods of an adopted engine where there are no nodes.

The Deployment controller is the real one, and so is each pod's agent, run in this process on an address of its own
from the pod's own environment; beside it a fake engine. What a kubelet would mount is mounted, and a pod is Ready when
its agent says so.

    with EnginePods.acting(plane, "models", "llama", hub_url=hub.url, root=tmp_path) as pods:
        pods.wait_ready(2)
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import itertools
import secrets
import threading
import time
from collections.abc import Coroutine, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

import lora_agent
from localcluster import ControlPlane
from lora_operator.labels import ENGINE
from lora_operator.lora_engine.manifests import AGENT
from lora_operator.protocol import door
from lora_operator.protocol.manifest import shard_in
from support import agents, fake_engine
from support.apiserver import ApiServer, RefusedError, collection
from support.operating import eventually

Object = dict[str, Any]
Result = TypeVar("Result")

TICK_SECONDS = 0.3
MOUNT_SECONDS = 2.0
PROBE_FAILURES = 3
"""What a kubelet takes for a pod that is not Ready any more."""


@dataclass(kw_only=True)
class EnginePod:
    """One pod that runs: its agent, the engine beside it, and the levers that a test has."""

    obj: Object
    address: str
    folder: agents.Pod
    engine: fake_engine.Engine
    stack: contextlib.AsyncExitStack = field(default_factory=contextlib.AsyncExitStack)
    agent_stack: contextlib.AsyncExitStack = field(default_factory=contextlib.AsyncExitStack)
    agent: lora_agent.Agent | None = None
    ready: bool | None = None
    failures: int = 0

    @property
    def name(self) -> str:
        """The pod's name."""
        name: str = self.obj["metadata"]["name"]
        return name

    @property
    def published(self) -> set[str]:
        """The contents whose files are in the adapters volume, as hex."""
        return {path.name for path in self.folder.volume.iterdir() if len(path.name) == 64}

    async def start_agent(self) -> None:
        """Open the agent's door."""
        serving = lora_agent.serve(self.folder.settings, host=self.address, port=door.PORT)
        self.agent = await self.agent_stack.enter_async_context(serving)

    async def stop_agent(self) -> None:
        """Close the agent's door; connections are refused."""
        self.agent = None
        await self.agent_stack.aclose()

    async def hang_agent(self) -> None:
        """Let the agent take connections and never answer."""
        await self.stop_agent()
        await self._open_dead_door()

    async def cut_off(self) -> None:
        """Let the agent live on, and kubelet find it, where nobody else does: connections are taken, never answered."""
        await self.stop_agent()
        serving = lora_agent.serve(self.folder.settings, host="127.0.0.1", port=0)
        self.agent = await self.agent_stack.enter_async_context(serving)
        await self._open_dead_door()

    async def _open_dead_door(self) -> None:
        callers: list[asyncio.StreamWriter] = []

        def hang_up() -> None:
            for caller in callers:
                caller.close()

        server = await asyncio.start_server(lambda _, caller: callers.append(caller), self.address, door.PORT)
        self.agent_stack.callback(hang_up)
        self.agent_stack.callback(server.close)

    async def stop(self) -> None:
        """End it."""
        await self.stop_agent()
        await self.stack.aclose()

    def probe(self) -> bool:
        """Return what the pod's readiness is after one more probe."""
        if self.agent is not None:
            self.agent.holder.refresh()
            if self.agent.holder.board.report.ready:
                self.failures = 0
                return True
        self.failures += 1
        return bool(self.ready) and self.failures < PROBE_FAILURES


class EnginePods:
    """The pods of one LoRAEngine. Its methods are for the thread of the test."""

    def __init__(self, plane: ControlPlane, namespace: str, engine: str, *, hub_url: str, root: Path) -> None:
        self._api = ApiServer(plane)
        self._namespace = namespace
        self._engine = engine
        self._hub_url = hub_url
        self._root = root
        self._numbers = itertools.count(1)
        # Every address of 127.0.0.0/8 is this machine's own; other tests that run beside this one have another net.
        self._net = f"127.{16 + secrets.randbelow(200)}.{secrets.randbelow(250)}"
        self._pods: dict[str, EnginePod] = {}
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stopped = threading.Event()
        self._failure: BaseException | None = None

    @classmethod
    @contextmanager
    def acting(
        cls, plane: ControlPlane, namespace: str, engine: str, *, hub_url: str, root: Path
    ) -> Iterator[EnginePods]:
        """Act for the time of a with-block, on a thread of its own."""
        actor = cls(plane, namespace, engine, hub_url=hub_url, root=root)
        thread = threading.Thread(target=actor._run, name=f"kubelet of {engine}")
        thread.start()
        try:
            yield actor
        finally:
            actor._stopped.set()
            thread.join()
        if actor._failure is not None:
            raise actor._failure

    @property
    def pods(self) -> list[EnginePod]:
        """Return the pods that run, the oldest first."""
        return list(self._pods.values())

    def wait_ready(self, count: int, *, deadline: float = 180.0) -> list[EnginePod]:
        """Wait until so many pods run, all of them Ready, and return them."""

        def look() -> list[EnginePod] | None:
            if self._failure is not None:
                raise self._failure
            pods = self.pods
            return pods if len(pods) == count and all(pod.ready for pod in pods) else None

        return eventually(look, f"{count} Ready pods of {self._engine}", deadline=deadline)

    def restart_engine(self, pod: EnginePod) -> None:
        """Kill the engine's container: it comes back with nothing loaded, and the pod stays."""
        self._call(pod.engine.restart())

    def hang_engine(self, pod: EnginePod) -> None:
        """Let the engine take requests and never answer, until it is `heal_engine`ed."""
        for path in ("/health", "/v1/models", "/v1/load_lora_adapter", "/v1/unload_lora_adapter", "/metrics"):
            pod.engine.fault(path, hang=True, times=-1)

    def heal_engine(self, pod: EnginePod) -> None:
        """Let the engine answer again."""

        async def heal() -> None:
            pod.engine.clear_faults()

        self._call(heal())

    def hang_agent(self, pod: EnginePod) -> None:
        """Let the agent take connections and never answer."""
        self._call(pod.hang_agent())

    def cut_off(self, pod: EnginePod) -> None:
        """Let the operator reach the agent no more, though kubelet does: the pod stays Ready."""
        self._call(pod.cut_off())

    def restart_agent(self, pod: EnginePod) -> None:
        """End the agent, however it is, and start it on the same volumes."""

        async def restart() -> None:
            await pod.stop_agent()
            await pod.start_agent()

        self._call(restart())

    def delete(self, pod: EnginePod) -> None:
        """Delete the pod: its ReplicaSet makes another."""
        self._api.call("DELETE", _path(pod.obj))

    def _call(self, work: Coroutine[Any, Any, Result]) -> Result:
        assert self._loop is not None
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(timeout=60)

    def _run(self) -> None:
        try:
            asyncio.run(self._act())
        except BaseException as failure:  # noqa: BLE001 - the test's own thread raises it
            self._failure = failure

    async def _act(self) -> None:
        self._loop = asyncio.get_running_loop()
        mounted = 0.0
        try:
            while not self._stopped.is_set():
                await self._follow()
                if time.monotonic() - mounted > MOUNT_SECONDS:
                    mounted = time.monotonic()
                    await self._mount(self.pods)
                for pod in self.pods:
                    await self._tell(pod)
                await asyncio.sleep(TICK_SECONDS)
        finally:
            for pod in self.pods:
                await pod.stop()
            await _hang_up(self._loop)

    async def _follow(self) -> None:
        """Start the pods that are new and end those that are gone."""
        listed = {
            obj["metadata"]["name"]: obj
            for obj in await self._list("pods")
            if "deletionTimestamp" not in obj["metadata"]
        }
        for name in self._pods.keys() - listed.keys():
            await self._pods.pop(name).stop()
        for name in listed.keys() - self._pods.keys():
            self._pods[name] = await self._start(listed[name])

    async def _start(self, obj: Object) -> EnginePod:
        number = next(self._numbers)
        engine = fake_engine.Engine()
        await engine.start()
        settings = self._settings(obj, number, engine)
        pod = EnginePod(
            obj=obj | {"apiVersion": "v1", "kind": "Pod"},
            address=f"{self._net}.{number}",
            folder=agents.Pod(root=self._root / f"pod-{number}", settings=settings),
            engine=engine,
        )
        pod.stack.push_async_callback(engine.stop)
        await self._mount([pod])
        await pod.start_agent()
        return pod

    def _settings(self, obj: Object, number: int, engine: fake_engine.Engine) -> lora_agent.Settings:
        """Return the agent's settings from the pod's own environment, with what differs without nodes."""
        [agent] = [container for container in obj["spec"]["initContainers"] if container["name"] == AGENT]
        environment = {entry["name"]: entry.get("value", obj["metadata"]["uid"]) for entry in agent["env"]}
        places = {name: self._root / f"pod-{number}" / name for name in ("adapters", "manifest", "secret")}
        for place in places.values():
            place.mkdir(parents=True)
        return replace(
            lora_agent.Settings.from_environment(environment),
            hub_endpoint=self._hub_url,
            engine_url=engine.url,
            poll_seconds=0.5,
            drain_seconds=0,
            adapters_path=places["adapters"],
            manifest_path=places["manifest"],
            secret_path=places["secret"],
        )

    async def _mount(self, pods: list[EnginePod]) -> None:
        """Bring ConfigMaps and Secret into the pods' volumes, as a kubelet does now and then."""
        shards = [shard_in(config_map) for config_map in await self._list("configmaps")]
        secret = await self._get_secret()
        for pod in pods:
            for shard in filter(None, shards):
                pod.folder.mount(shard)
            if secret:
                pod.folder.mount_secret(secret)

    async def _tell(self, pod: EnginePod) -> None:
        """Tell the apiserver of an address and of a change of readiness, as a kubelet does."""
        ready = pod.probe()
        if ready == pod.ready:
            return
        now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        condition = {"type": "Ready", "status": str(ready), "lastTransitionTime": now}
        status = {
            "phase": "Running",
            "podIP": pod.address,
            "podIPs": [{"ip": pod.address}],
            "startTime": now,
            "conditions": [condition],
        }
        pod.ready = ready
        with contextlib.suppress(RefusedError):  # deleted in between: there is nobody left to be told of
            await asyncio.to_thread(
                self._api.call,
                "PATCH",
                f"{_path(pod.obj)}/status",
                {"status": status},
                media="application/strategic-merge-patch+json",
            )

    async def _list(self, plural: str) -> list[Object]:
        path = f"/api/v1/namespaces/{self._namespace}/{plural}?labelSelector={ENGINE}%3D{self._engine}"
        items: list[Object] = (await asyncio.to_thread(self._api.call, "GET", path))["items"]
        return items

    async def _get_secret(self) -> Mapping[str, str]:
        path = f"/api/v1/namespaces/{self._namespace}/secrets/{door.secret_name(self._engine)}"
        try:
            found = await asyncio.to_thread(self._api.call, "GET", path)
        except RefusedError:
            return {}
        return {key: base64.b64decode(value).decode() for key, value in (found.get("data") or {}).items()}


def _path(pod: Object) -> str:
    return f"{collection(pod)}/{pod['metadata']['name']}"


async def _hang_up(loop: Any) -> None:
    """Close what came in while the doors were closing: asyncio leaves a connection in mid-handshake to nobody."""
    for transport in list(loop._transports.values()):
        transport.abort()
    await asyncio.sleep(0)
