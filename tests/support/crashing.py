"""The main flow in a namespace of its own, with an operator that is killed on the way: what it leaves, and how.

adopt an engine -> train -> publish -> serve -> delete the adapter: real apiserver and controllers, real agent, fake
engine, and an operator that is the real program, behind a `FaultProxy`.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from hubserver import Hub
from localcluster import ControlPlane, kubeconfig
from support import samples
from support.adapters import AdapterFiles, make_adapter
from support.apiserver import ApiServer, RefusedError
from support.engine_pods import EnginePod, EnginePods
from support.fault_proxy import CrashPoint, FaultProxy, Moment, Write
from support.job_actor import JobActor, publishing
from support.operating import eventually, free_port
from support.serving import BASE, ENGINE_NAME, deployment, engine, publish_base
from support.snapshot import KINDS, snapshot

Object = dict[str, Any]
Found = TypeVar("Found")

BOT, TRAINING = "bot", "support"
QUIET_SECONDS = 3.0


@dataclass(frozen=True)
class Ground:
    """What all runs share."""

    plane: ControlPlane
    hub: Hub
    root: Path


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What a run came to."""

    served: Object
    """The namespace with the adapter Ready."""
    left: Object
    """The namespace once the adapter was deleted."""
    writes: tuple[Write, ...]
    engine_calls: Counter[str]
    warnings: frozenset[str]
    kills: tuple[Moment, ...]

    @property
    def created(self) -> Counter[str]:
        """How often each object was made: what the apiserver answers with 201."""
        return Counter(write.what for write in self.writes if write.status == 201)


@dataclass
class Life:
    """The operator's process, life after life, each at a door of its own."""

    folder: Path
    settings: dict[str, str]
    proxy: FaultProxy
    process: subprocess.Popen[bytes] | None = None
    lives: int = 0

    @property
    def log(self) -> Path:
        """What all lives wrote."""
        return self.folder / "operator.log"

    def begin(self) -> None:
        """Start the program at a new door."""
        self.lives += 1
        config = self.folder / f"kubeconfig-{self.lives}"
        kubeconfig.write(config, server=self.proxy.open_door(), ca=self.proxy.ca_file, token=self.proxy.token)
        environment = {"PATH": os.environ["PATH"], "KUBECONFIG": str(config)} | self.settings
        environment["LORA_OPERATOR_METRICS_PORT"] = str(free_port())
        with self.log.open("ab") as output:
            command = [sys.executable, "-m", "lora_operator"]
            self.process = subprocess.Popen(command, env=environment, stdout=output, stderr=output)

    def end(self) -> None:
        """End the program as a node's failure would."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()

    def end_and_begin(self) -> None:
        """End this life and start the next."""
        self.end()
        self.begin()

    def check(self) -> None:
        """Fail where the program ended by itself."""
        if self.process is not None and (code := self.process.poll()) not in {None, -9}:
            raise RuntimeError(f"the operator ended with {code}:\n{self.log.read_text()[-3000:]}")


@contextmanager
def behind_proxy(
    plane: ControlPlane, folder: Path, *, crash: CrashPoint | None = None, **settings: str
) -> Iterator[Life]:
    """Run an operator behind a proxy for the time of a with-block; it is killed around `crash`, and comes back."""
    folder.mkdir(parents=True)
    with FaultProxy.running(plane, crash=crash) as proxy:
        life = Life(folder, settings, proxy)
        proxy.kill = life.end_and_begin
        life.begin()
        try:
            yield life
        finally:
            life.end()


@dataclass
class Run:
    """One run of the main flow."""

    ground: Ground
    namespace: str
    crash: CrashPoint | None = None
    _life: Life | None = None

    def __post_init__(self) -> None:
        self._api = ApiServer(self.ground.plane)
        self._actor = JobActor(self.ground.plane, self.namespace)

    def play(self) -> Outcome:
        """Play the whole flow and return what it came to."""
        files = make_adapter()
        commit = self._prepare(files)
        with self._operator() as self._life, self._engine_pods() as pods:
            self._until("loraengines", ENGINE_NAME, "Serving")
            # A training is frozen with what is known of its engine: in every run the same.
            self._eventually(self._engine_version, "the engine's version")
            self._create(self._training())
            self._train(commit, files)
            self._until("loraadapters", BOT, "Loaded")
            self._until("loratrainingjobs", TRAINING, "Published")
            self._settle(self._life)
            served = snapshot(self._api, self.namespace)
            self._delete_adapter(pods.pods[0])
            self._settle(self._life)
            return self._outcome(served, pods.pods[0], self._life.proxy)

    def _engine_version(self) -> str | None:
        engine = self._get(KINDS["loraengines"], "loraengines", ENGINE_NAME) or {}
        version: str | None = ((engine.get("status") or {}).get("engine") or {}).get("version")
        return version

    def _prepare(self, files: AdapterFiles) -> str:
        publish_base(self.ground.hub)
        self._api.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": self.namespace}})
        self._eventually(lambda: self._get("/api/v1", "serviceaccounts", "default"), "the ServiceAccount")
        rows = json.dumps({"messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "ho"}]})
        for obj in (
            {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "rows"}, "data": {"train.jsonl": rows}},
            {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "hf"}, "stringData": {"token": "hf_write"}},
            deployment(),
            engine(),
        ):
            self._create(obj)
        return self.ground.hub.add_model(f"acme/{self.namespace}", files.files, private=True)

    def _operator(self) -> AbstractContextManager[Life]:
        port = str(free_port())
        settings = {
            "LORA_OPERATOR_NAMESPACE": self.namespace,
            "LORA_OPERATOR_WATCH_NAMESPACES": self.namespace,
            "LORA_OPERATOR_PROGRESS_PORT": port,
            "LORA_OPERATOR_PROGRESS_URL": f"https://127.0.0.1:{port}",
            "HF_ENDPOINT": self.ground.hub.url,
            "HF_HUB_DISABLE_XET": "1",
        }
        folder = self.ground.root / self.namespace
        return behind_proxy(self.ground.plane, folder, crash=self.crash, **settings)

    def _engine_pods(self) -> AbstractContextManager[EnginePods]:
        root = self.ground.root / self.namespace / "pods"
        hub = self.ground.hub.url
        return EnginePods.acting(self.ground.plane, self.namespace, ENGINE_NAME, hub_url=hub, root=root)

    def _training(self) -> Object:
        token = {"name": "hf", "key": "token"}
        given = {
            "spec.baseModel": {"name": BASE},
            "spec.engineRef": {"name": ENGINE_NAME},
            "spec.dataset.source": {"configMapRef": {"name": "rows", "key": "train.jsonl"}},
            "spec.output.hub": {"repo": f"acme/{self.namespace}", "tokenSecretRef": token},
            "spec.output.adapter": {"name": BOT},
        }
        return samples.varied(samples.training_job(TRAINING, self.namespace), given)

    def _train(self, commit: str, files: AdapterFiles) -> None:
        """Play the trainer: start, wait until it is seen to run, publish."""

        def look() -> Object | None:
            pods = self._api.call("GET", f"{self._collection('/api/v1', 'pods')}?labelSelector=job-name")["items"]
            return pods[0] if pods else None

        pod = self._eventually(look, "the trainer's pod")
        self._actor.run(pod)
        self._until("loratrainingjobs", TRAINING, "Training")
        self._actor.end(pod, publishing(f"acme/{self.namespace}", commit, digest=files.digest))

    def _delete_adapter(self, pod: EnginePod) -> None:
        group = KINDS["loraadapters"]
        self._api.call("DELETE", f"{self._collection(group, 'loraadapters')}/{BOT}")
        self._eventually(lambda: self._get(group, "loraadapters", BOT) is None, "the adapter to be gone")
        self._eventually(lambda: not pod.engine.adapters and not pod.published, "its files to be gone")

    def _settle(self, life: Life) -> None:
        """Wait until the operator writes nothing any more."""
        self._eventually(lambda: life.proxy.quiet_for(QUIET_SECONDS), f"{QUIET_SECONDS} s without a write")

    def _outcome(self, served: Object, pod: EnginePod, proxy: FaultProxy) -> Outcome:
        events = self._api.call("GET", self._collection("/apis/events.k8s.io/v1", "events"))["items"]
        ours = [event for event in events if event.get("reportingController") == "lora-operator.io/operator"]
        asked = (path for method, path, _ in pod.engine.requests if method == "POST")
        return Outcome(
            served=served,
            left=snapshot(self._api, self.namespace),
            writes=tuple(proxy.writes),
            engine_calls=Counter(asked),
            warnings=frozenset(event["reason"] for event in ours if event["type"] == "Warning"),
            kills=tuple(proxy.kills),
        )

    def _until(self, plural: str, name: str, reason: str) -> None:
        """Wait until an object's Ready has this reason."""

        def look() -> bool:
            obj = self._get(KINDS["loraengines"], plural, name) or {}
            conditions = (obj.get("status") or {}).get("conditions") or []
            return any(one["type"] == "Ready" and one["reason"] == reason for one in conditions)

        try:
            self._eventually(look, f"{plural}/{name} to say {reason}")
        except TimeoutError as error:
            status = (self._get(KINDS["loraengines"], plural, name) or {}).get("status")
            raise TimeoutError(f"{error}; it has {json.dumps(status)}") from None

    def _eventually(self, look: Callable[[], Found | None], what: str) -> Found:
        def alive() -> Found | None:
            if self._life is not None:
                self._life.check()
            return look()

        return eventually(alive, f"{what} in {self.namespace}")

    def _create(self, obj: Object) -> None:
        self._api.create(obj | {"metadata": obj["metadata"] | {"namespace": self.namespace}})

    def _get(self, group: str, plural: str, name: str) -> Object | None:
        try:
            return self._api.call("GET", f"{self._collection(group, plural)}/{name}")
        except RefusedError as refused:
            if "not found" in str(refused):
                return None
            raise

    def _collection(self, group: str, plural: str) -> str:
        return f"{group}/namespaces/{self.namespace}/{plural}"
