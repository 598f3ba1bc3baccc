"""One namespace with what training jobs need, for `cluster`: an engine, a data set, a Hub token, and the actor."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from hubserver import Hub
from localcluster import ControlPlane
from localcluster.controlplane import KubectlError
from support import samples
from support.job_actor import JobActor
from support.operating import eventually

Object = dict[str, Any]

ENGINE = "vllm"
MAX_LORA_RANK = 16


@dataclass(frozen=True)
class Trainings:
    """Training jobs of one namespace, which is also the organisation on the Hub."""

    plane: ControlPlane
    hub: Hub
    namespace: str

    @property
    def actor(self) -> JobActor:
        """Who plays kubelet here."""
        return JobActor(self.plane, self.namespace)

    def prepare(self) -> None:
        """Make the namespace, an engine that the operator adopts, a data set, a token, and the base on the Hub."""
        self.plane.run_kubectl("create", "namespace", self.namespace)
        self.hub.add_model("acme/tiny-llama", {"config.json": b"{}"})
        rows = json.dumps({"messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "ho"}]})
        data = _object("v1", "ConfigMap", "support", self.namespace) | {"data": {"train.jsonl": rows}}
        token = _object("v1", "Secret", "hf", self.namespace) | {"stringData": {"token": "hf_write"}}
        engine = samples.varied(samples.engine(ENGINE, self.namespace), {"spec.targetRef": {"name": ENGINE}})
        self.apply(data, token, _deployment(self.namespace), engine)
        self.plane.run_kubectl(
            "wait", "--for=condition=Adopted", "--timeout=120s", "-n", self.namespace, f"loraengine/{ENGINE}"
        )

    def job(self, name: str, **fields: Any) -> Object:
        """Return a LoRATrainingJob that is in order, with other values at dotted paths (`__` for a dot)."""
        usual = {
            "spec.engineRef": {"name": ENGINE},
            "spec.output.hub": {"repo": f"acme/{name}", "tokenSecretRef": {"name": "hf", "key": "token"}},
        }
        given = {f"spec.{path.replace('__', '.')}": value for path, value in fields.items()}
        return samples.varied(samples.training_job(name, self.namespace), usual | given)

    def apply(self, *objects: Object) -> None:
        """Apply objects as a user does."""
        for obj in objects:
            self.plane.run_kubectl("apply", "-f", "-", stdin=json.dumps(obj))

    def get(self, kind: str, name: str) -> Object | None:
        """Return an object, or None."""
        try:
            text = self.plane.run_kubectl("get", kind, name, "-n", self.namespace, "-o", "json")
        except KubectlError as error:
            if "NotFound" in str(error):
                return None
            raise
        found: Object = json.loads(text)
        return found

    def pod(self, name: str, *, attempt: int = 1) -> Object:
        """Return the pod of a training's attempt, as soon as the Job controller has made it."""

        def look() -> Object | None:
            pods = self.actor.pods(name)
            return pods[attempt - 1] if len(pods) >= attempt else None

        return eventually(look, f"pod {attempt} of {name}: {self.ready(name)}")

    def ready(self, name: str) -> Object:
        """Return the Ready condition of a training job; empty where there is none."""
        status = (self.get("loratrainingjob", name) or {}).get("status") or {}
        return next((one for one in status.get("conditions", []) if one["type"] == "Ready"), {})

    def until(self, name: str, reason: str) -> Object:
        """Wait until Ready has this reason; return the training job."""
        eventually(lambda: self.ready(name).get("reason") == reason, f"{name} to say {reason}: {self.ready(name)}")
        found = self.get("loratrainingjob", name)
        assert found is not None
        return found

    def events(self, name: str) -> list[Object]:
        """Return the Events about a training job."""
        text = self.plane.run_kubectl("get", "events.events.k8s.io", "-n", self.namespace, "-o", "json")
        return [event for event in json.loads(text)["items"] if event["regarding"]["name"] == name]


def conditions(obj: Object) -> dict[str, str]:
    """Return an object's conditions: type and status."""
    return {one["type"]: one["status"] for one in obj["status"]["conditions"]}


def _deployment(namespace: str) -> Object:
    labels = {"app": ENGINE}
    words = ["--model", "acme/tiny-llama", "--enable-lora", "--max-lora-rank", str(MAX_LORA_RANK)]
    container = {"name": "vllm", "image": "example.org/vllm:1", "command": ["vllm", "serve"], "args": words}
    template = {"metadata": {"labels": labels}, "spec": {"enableServiceLinks": False, "containers": [container]}}
    spec = {"replicas": 0, "selector": {"matchLabels": labels}, "template": template}
    return _object("apps/v1", "Deployment", ENGINE, namespace) | {"spec": spec}


def _object(api_version: str, kind: str, name: str, namespace: str) -> Object:
    return {"apiVersion": api_version, "kind": kind, "metadata": {"name": name, "namespace": namespace}}
