"""One training job in a world in memory, and the hands to move it along: its Job's status, its pods, the passes."""

from __future__ import annotations

import base64
import copy
from typing import Any

from lora_operator.api.lora_training_job import LoRATrainingJob
from lora_operator.labels import Key
from lora_operator.lora_training_job import reconcile
from lora_operator.lora_training_job.manifests import run_name
from lora_operator.protocol.training import Artifact, Reason, Result
from support import samples
from support.memory_world import TrainingWorld, make_world

Object = dict[str, Any]
KEY = Key("LoRATrainingJob", "default", "support-v1")
BOT = Key("LoRAAdapter", "default", "bot")
COMMIT = "c0ffee" + "0" * 34
UID = "uid-LoRATrainingJob-support-v1"
ARTIFACT = Artifact(repo="acme/support-lora", commit=COMMIT, digest="sha256:" + "0" * 64, size_bytes=7)
PUBLISHED = Result(reason=Reason.PUBLISHED, message="60 steps", artifact=ARTIFACT, steps=60, metrics={"loss": "0.5"})
OWN_HUB = {"repo": "acme/support-lora", "tokenSecretRef": {"name": "hf", "key": "token"}}


def make(**fields: Any) -> TrainingWorld:
    """Return a world with one training job that is in order, with other values at paths (`__` for a dot)."""
    usual = {
        "metadata.generation": 1,
        "spec.engineRef": {"name": "vllm"},
        "spec.output": {"hub": OWN_HUB, "adapter": {"name": "bot"}},
    }
    given = {path.replace("__", "."): value for path, value in fields.items()}
    ground = make_world()
    for obj in (
        make_engine(),
        make_object("v1", "ConfigMap", "support") | {"data": {"train.jsonl": "{}"}},
        make_object("v1", "Secret", "hf") | {"data": {"token": base64.b64encode(b"hf_write").decode()}},
        samples.varied(samples.training_job("support-v1"), copy.deepcopy(usual | given)),
    ):
        ground.kube.put(obj)
    return ground


def make_engine(**status: Any) -> Object:
    """Return the engine that the training is for, adopted."""
    adopted = {"type": "Adopted", "status": "True", "reason": "Adopted", "lastTransitionTime": "2026-11-22T11:00:00Z"}
    usual = {"conditions": [adopted], "baseModel": "acme/tiny-llama", "flags": {"maxLoraRank": 16}}
    return samples.engine("vllm") | {"status": usual | status}


def make_object(api_version: str, kind: str, name: str) -> Object:
    """Return an object without content."""
    return {"apiVersion": api_version, "kind": kind, "metadata": {"name": name, "namespace": "default"}}


def run_key(ground: TrainingWorld) -> Key:
    """Return the key of the training's Job."""
    return Key("Job", "default", run_name(LoRATrainingJob.model_validate(ground.kube.objects[KEY])))


def run_of(ground: TrainingWorld) -> Object:
    """Return the training's Job."""
    return ground.kube.objects[run_key(ground)]


def set_run(ground: TrainingWorld, **status: Any) -> None:
    """Give the Job a status, as its controller does."""
    ground.kube.put(run_of(ground) | {"status": status})


def put_pod(ground: TrainingWorld, state: Object, name: str = "pod-1") -> None:
    """Put a pod of the Job whose trainer is in this state."""
    run = run_of(ground)
    owner = {"kind": "Job", "name": run["metadata"]["name"], "uid": run["metadata"]["uid"], "controller": True}
    pod = make_object("v1", "Pod", name)
    pod["metadata"] |= {"labels": run["spec"]["template"]["metadata"]["labels"], "ownerReferences": [owner]}
    status = {"phase": "Running", "containerStatuses": [{"name": "trainer", "state": state}]}
    ground.kube.put(pod | {"spec": run["spec"]["template"]["spec"], "status": status})


def end_pod(ground: TrainingWorld, result: Result, code: int = 0) -> None:
    """End the trainer with a result."""
    message = result.model_dump_json(by_alias=True)
    put_pod(ground, {"terminated": {"exitCode": code, "reason": "Completed", "message": message}})


def fail_run(ground: TrainingWorld, reason: str) -> None:
    """Fail the Job."""
    set_run(ground, conditions=[{"type": "Failed", "status": "True", "reason": reason, "message": "failed"}])


def status_of(ground: TrainingWorld) -> Object:
    """Return the training job's status."""
    status: Object = ground.kube.objects[KEY]["status"]
    return status


def condition(ground: TrainingWorld, kind: str) -> Object:
    """Return a condition; empty where there is none."""
    return next((one for one in status_of(ground)["conditions"] if one["type"] == kind), {})


def told(ground: TrainingWorld, kind: str) -> tuple[str, str]:
    """Return a condition's status and reason."""
    one = condition(ground, kind)
    return one.get("status", ""), one.get("reason", "")


async def settle(ground: TrainingWorld) -> float | None:
    """Run passes until they write nothing more."""
    for _ in range(10):
        before = len(ground.kube.writes)
        again = await reconcile(KEY, ground.world)
        if len(ground.kube.writes) == before:
            return again
    raise AssertionError(f"the passes do not come to rest: {ground.kube.writes}")
