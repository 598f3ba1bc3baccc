"""A namespace with an adopted engine whose pods run, for tests of adapters: real apiserver, real agents, a fake engine.

with ServingSite.running(plane, "models", hub=hub, root=tmp_path) as site:
    site.publish("acme/bot", make_adapter())
    site.apply(adapter("bot", repo="acme/bot"))
    site.until("loraadapter", "bot", "Ready", status="True")
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from hubserver import Hub
from localcluster import ControlPlane
from lora_operator.labels import API_VERSION, ENGINE
from support.adapters import TINY_LLAMA, AdapterFiles
from support.apiserver import ApiServer, RefusedError
from support.engine_pods import EnginePods
from support.operating import eventually
from support.site import Object, Site

BASE = "acme/tiny-llama"
SERVE = ("vllm", "serve", BASE, "--enable-lora")
ENGINE_NAME = "llama"
_GROUPS = {
    "loraadapters": f"/apis/{API_VERSION}",
    "loraengines": f"/apis/{API_VERSION}",
    "deployments": "/apis/apps/v1",
    "events": "/apis/events.k8s.io/v1",
}
"""Where resources lie that are not in the core group."""


@dataclass(frozen=True)
class ServingSite(Site):
    """A namespace with an engine called `llama`."""

    hub: Hub
    pods: EnginePods

    @classmethod
    @contextmanager
    def running(
        cls,
        plane: ControlPlane,
        namespace: str,
        *,
        hub: Hub,
        root: Path,
        replicas: int = 1,
        command: tuple[str, ...] = SERVE,
    ) -> Iterator[ServingSite]:
        """Make the namespace, adopt an engine in it and run its pods for a with-block."""
        plain = Site.made(plane, namespace)
        publish_base(hub)
        plain.apply(deployment(command=command, replicas=replicas))
        plain.apply(engine())
        with EnginePods.acting(plane, namespace, ENGINE_NAME, hub_url=hub.url, root=root) as pods:
            pods.wait_ready(replicas)
            plain.until("loraengine", ENGINE_NAME, "Ready", status="True")
            yield cls(plane, namespace, hub, pods)

    def get(self, kind: str, name: str) -> Object | None:
        """Return an object; None where it is not there. Without kubectl: tests of adapters look often."""
        try:
            return ApiServer(self.plane).call("GET", f"{self._collection(f'{kind}s')}/{name}")
        except RefusedError as refused:
            if "not found" in str(refused):
                return None
            raise

    def items(self, kind: str, *arguments: str) -> list[Object]:
        """Return the objects of a kind, of a label where one is given (`-l`, `key=value`)."""
        query = f"?labelSelector={quote(arguments[1])}" if arguments else ""
        plural = "events" if kind.startswith("events") else kind
        found: list[Object] = ApiServer(self.plane).call("GET", f"{self._collection(plural)}{query}")["items"]
        return found

    def _collection(self, plural: str) -> str:
        return f"{_GROUPS.get(plural, '/api/v1')}/namespaces/{self.namespace}/{plural}"

    def publish(self, repo: str, files: AdapterFiles, *, private: bool = False) -> str:
        """Put an adapter onto the Hub and return its commit."""
        return self.hub.add_model(repo, files.files, private=private)

    def status(self, name: str) -> Object:
        """Return an adapter's status."""
        status: Object = (self.get("loraadapter", name) or {}).get("status") or {}
        return status

    def engine_name(self, name: str) -> str:
        """Return what the engine calls the version of an adapter that serves."""
        found: str = (self.status(name).get("current") or {}).get("engineName") or ""
        return found

    def ready(self, name: str) -> str:
        """Wait until an adapter is Ready; return its engine name."""
        self.until("loraadapter", name, "Ready", status="True")
        return self.engine_name(name)

    def told(self, name: str, reason: str) -> Object:
        """Wait for an Event about an adapter and return it."""
        return eventually(
            lambda: next((event for event in self.events_of(name) if event["reason"] == reason), None),
            f"an Event {reason} about {name}; there are {[event['reason'] for event in self.events_of(name)]}",
        )

    def manifest(self) -> dict[str, str]:
        """Return the version of each of our ConfigMaps: to tell whether something was written."""
        items = self.items("configmaps", "-l", f"{ENGINE}={ENGINE_NAME}")
        return {item["metadata"]["name"]: item["metadata"]["resourceVersion"] for item in items}

    def loads(self) -> list[str]:
        """Return every name that an engine was asked to load."""
        return [call["lora_name"] for pod in self.pods.pods for call in pod.engine.calls("/v1/load_lora_adapter")]


def publish_base(hub: Hub) -> None:
    """Put the base's config onto the Hub."""
    hub.add_model(BASE, {"config.json": json.dumps(TINY_LLAMA.config()).encode()})


def deployment(name: str = "vllm-llama", *, command: tuple[str, ...] = SERVE, replicas: int = 1) -> Object:
    """Return a user's Deployment of an engine."""
    app = {"app": name}
    container = {"name": "vllm", "image": "example.org/serving:1", "command": list(command)}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name},
        "spec": {
            "replicas": replicas,
            "strategy": {"rollingUpdate": {"maxSurge": "100%"}},
            "selector": {"matchLabels": app},
            "template": {"metadata": {"labels": app}, "spec": {"containers": [container]}},
        },
    }


def engine(name: str = ENGINE_NAME, *, target: str = "vllm-llama", **spec: Any) -> Object:
    """Return a LoRAEngine."""
    return _object("LoRAEngine", name, {"targetRef": {"name": target}} | spec)


def adapter(name: str, *, repo: str = "", **spec: Any) -> Object:
    """Return a LoRAAdapter of a repository, on the engine of a `ServingSite`."""
    source = {"source": {"hub": {"repo": repo}}} if repo else {}
    return _object("LoRAAdapter", name, {"baseModel": BASE, "engineRef": {"name": ENGINE_NAME}} | source | spec)


def _object(kind: str, name: str, spec: Object) -> Object:
    return {"apiVersion": API_VERSION, "kind": kind, "metadata": {"name": name}, "spec": spec}
