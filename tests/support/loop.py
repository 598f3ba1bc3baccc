"""The main loop's objects as a test sees them: kubectl in, plain objects out, and questions to single engine pods."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import httpx2

from quickstart import manifests
from quickstart.stage import Stage
from support.operating import eventually

Object = dict[str, Any]
Objects = list[Object]
Names = list[str]

DEADLINE = 900.0
"""Seconds: an engine's start takes a minute on a busy machine, and a rollout has several."""


@dataclass(frozen=True)
class Loop:
    """One namespace on the stage."""

    stage: Stage
    namespace: str

    def apply(self, *objects: Object) -> None:
        """Apply objects as they are."""
        bundle = {"apiVersion": "v1", "kind": "List", "items": list(objects)}
        self.stage.kubectl("apply", "--namespace", self.namespace, "--filename", "-", stdin=json.dumps(bundle))

    def get(self, kind: str, name: str, *, namespace: str | None = None) -> Object | None:
        """Read one object; None where it is not there."""
        found = self.list(kind, f"--field-selector=metadata.name={name}", namespace=namespace)
        return found[0] if found else None

    def list(self, kind: str, *arguments: str, namespace: str | None = None) -> Objects:
        """Read objects of a kind."""
        where = ("--namespace", namespace or self.namespace)
        items: list[Object] = json.loads(self.stage.kubectl("get", kind, *where, *arguments, "--output=json"))["items"]
        return items

    def delete(self, kind: str, name: str, *arguments: str) -> None:
        """Delete an object and wait until it is gone."""
        self.stage.kubectl("delete", kind, name, "--namespace", self.namespace, "--timeout=180s", *arguments)

    def until(self, kind: str, name: str, holds: Callable[[Object], Any], what: str) -> Object:
        """Wait until an object is as wanted, and return it."""

        def look() -> Object | None:
            found = self.get(kind, name)
            return found if found is not None and holds(found) else None

        return eventually(look, f"{kind} {name}: {what}", deadline=DEADLINE)

    def until_ready(self, kind: str, name: str) -> Object:
        """Wait until an object's condition Ready is true."""
        return self.until(kind, name, lambda obj: condition(obj, "Ready").get("status") == "True", "Ready")

    def until_refused(self, kind: str, name: str, reason: str) -> Object:
        """Wait until an object's condition Ready is false for a reason."""

        def refused(obj: Object) -> bool:
            ready = condition(obj, "Ready")
            return (ready.get("status"), ready.get("reason")) == ("False", reason)

        return self.until(kind, name, refused, f"refused with {reason}")

    def engine_pods(self) -> Objects:
        """Return the engine's pods with the agent, those on their way out left out."""
        pods = self.list("pods", "--selector=lora-operator.io/role=engine")
        return [pod for pod in pods if "deletionTimestamp" not in pod["metadata"]]

    def events_of(self, name: str) -> Objects:
        """Return the Events about an object."""
        return self.list("events.events.k8s.io", f"--field-selector=regarding.name={name}")

    def ask(self, pod: Object, model: str, prompt: str, *, max_tokens: int = 16) -> str:
        """Complete a prompt greedily on one pod."""
        body = {"model": model, "prompt": prompt, "temperature": 0, "max_tokens": max_tokens}
        answer = httpx2.post(f"{url_of(pod)}/v1/completions", json=body, timeout=120)
        answer.raise_for_status()
        text: str = answer.json()["choices"][0]["text"]
        return text

    def models(self, pod: Object) -> set[str]:
        """Return the names that one pod's engine answers to; none while it is down."""
        try:
            answer = httpx2.get(f"{url_of(pod)}/v1/models", timeout=10)
        except httpx2.HTTPError:
            return set()
        return {model["id"] for model in answer.json()["data"]} if answer.status_code == 200 else set()

    def adapter_files(self, pod: Object) -> Names:
        """Return what lies in a pod's adapters volume but for the agent's own memory."""
        script = "import os; print(*[name for name in os.listdir('/adapters') if not name.startswith('.')])"
        pod_name = pod["metadata"]["name"]
        command = ("exec", pod_name, "--namespace", self.namespace, "--container", "lora-agent", "--", "python", "-c")
        return self.stage.kubectl(*command, script).split()


def url_of(pod: Object) -> str:
    """Return the URL of the engine in one pod."""
    return f"http://{pod['status']['podIP']}:{manifests.PORT}"


def condition(obj: Object, kind: str) -> Object:
    """Return a condition, or an empty one."""
    conditions = obj.get("status", {}).get("conditions", [])
    return next((found for found in conditions if found["type"] == kind), {})


def is_ready(pod: Object) -> bool:
    """Tell whether a pod takes traffic."""
    return condition(pod, "Ready").get("status") == "True"


def identities(pods: list[Object]) -> dict[str, int]:
    """Return the pods' uids, each with how often its containers have been restarted."""
    return {
        pod["metadata"]["uid"]: sum(
            status["restartCount"]
            for status in [
                *pod["status"].get("initContainerStatuses", []),
                *pod["status"].get("containerStatuses", []),
            ]
        )
        for pod in pods
    }
