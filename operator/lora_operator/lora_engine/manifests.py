"""What is injected into an engine's Deployment, and how it gets in: a server-side apply patch. Pure.

`injection` is the content; `deployment_patch` is one way of bringing it in. The patch touches map-keyed lists only, so
that what other managers apply stays theirs.
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Final

from kubernetes.utils.quantity import parse_quantity

from lora_operator import labels
from lora_operator.api import LoRAEngine
from lora_operator.api.lora_engine import EngineFlags
from lora_operator.engines import vllm
from lora_operator.lora_engine.workload import Workload
from lora_operator.protocol import door, manifest

Object = dict[str, Any]

AGENT: Final = "lora-agent"
AGENT_UID: Final = 10001
ENGINE_API_KEY: Final = "engine-api-key"
"""The key of the engine's Secret, and the file, that holds the API key of the engine itself."""
_API_KEY_MOUNT_PATH: Final = "/etc/lora-agent/engine"


@dataclass(frozen=True, slots=True, kw_only=True)
class Defaults:
    """What the operator was installed with, for engines that it adopts from now on."""

    image: str
    resources: Object
    env: tuple[Object, ...] = ()
    image_pull_secrets: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Injection:
    """What an engine's pods get: the same content whichever way it gets in."""

    agent: Object
    engine_env: tuple[Object, ...]
    engine_mounts: tuple[Object, ...]
    volumes: tuple[Object, ...]
    image_pull_secrets: tuple[Object, ...]


def injection(engine: LoRAEngine, workload: Workload, *, image: str, defaults: Defaults) -> Injection:
    """Return what the engine's pods are to get."""
    name = engine.metadata.name
    volumes = _volumes(name, engine, workload)
    env = [{"name": vllm.RUNTIME_UPDATES, "value": "True"}] if workload.runtime_updates else []
    return Injection(
        agent=_agent(engine, workload, image=image, defaults=defaults),
        engine_env=tuple(env),
        engine_mounts=({"mountPath": door.ADAPTERS_PATH, "name": "lora-adapters", "readOnly": True},),
        volumes=tuple(volumes),
        image_pull_secrets=tuple({"name": secret} for secret in defaults.image_pull_secrets),
    )


def deployment_patch(engine: LoRAEngine, container: str, content: Injection) -> Object:
    """Return the patch that brings the content into the target Deployment by its pod template."""
    pod: Object = {
        "initContainers": [content.agent],
        "containers": [
            {"name": container, "volumeMounts": list(content.engine_mounts)}
            | ({"env": list(content.engine_env)} if content.engine_env else {})
        ],
        "volumes": list(content.volumes),
    }
    if content.image_pull_secrets:
        pod["imagePullSecrets"] = list(content.image_pull_secrets)
    ours = {labels.ENGINE: engine.metadata.name}
    return release_patch(engine, labels=ours) | {
        "spec": {"template": {"metadata": {"labels": ours | {labels.ROLE: labels.ENGINE_ROLE}}, "spec": pod}}
    }


def release_patch(engine: LoRAEngine, **metadata: Object) -> Object:
    """Return the patch that gives up every field of ours."""
    identity = {"name": engine.spec.target_ref.name, "namespace": engine.metadata.namespace}
    return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": identity | metadata}


def beside(engine: LoRAEngine, kind: str, name: str) -> Object:
    """Return an object of ours beside the LoRAEngine, without content."""
    owner = {"apiVersion": labels.API_VERSION, "kind": "LoRAEngine", "name": engine.metadata.name}
    return {
        "apiVersion": "v1",
        "kind": kind,
        "metadata": {
            "name": name,
            "namespace": engine.metadata.namespace,
            "labels": {labels.ENGINE: engine.metadata.name, labels.MANAGED_BY: labels.FIELD_MANAGER},
            "ownerReferences": [owner | {"uid": engine.metadata.uid}],
        },
    }


def shard_object(engine: LoRAEngine, shard: manifest.Shard) -> Object:
    """Return a shard's ConfigMap."""
    obj = beside(engine, "ConfigMap", manifest.shard_name(engine.metadata.name, shard.index))
    obj["metadata"]["labels"][labels.SHARD] = str(shard.index)
    return obj | {"data": {manifest.DATA_KEY: shard.to_json()}}


def adoption_name(engine: str) -> str:
    """Return the name of the ConfigMap that keeps the patch as it was applied."""
    return f"{engine}-lora-adoption"


def amount(quantity: str | int) -> Decimal:
    """Return what an amount such as `20Gi` comes to; raises ValueError where it is none."""
    return Decimal(parse_quantity(quantity))  # type: ignore[no-untyped-call]


def _agent(engine: LoRAEngine, workload: Workload, *, image: str, defaults: Defaults) -> Object:
    given = engine.spec.agent.resources
    resources = given.model_dump(mode="json", by_alias=True, exclude_none=True) if given else defaults.resources
    return {
        "name": AGENT,
        "image": image,
        "restartPolicy": "Always",
        "env": _agent_env(engine, workload, defaults),
        "ports": [{"name": AGENT, "containerPort": door.PORT, "protocol": "TCP"}],
        # Seconds of patience: a busy node's slow answer must not take the engine's capacity out of service.
        "readinessProbe": {
            "httpGet": {"path": "/readyz", "port": door.PORT, "scheme": "HTTPS"},
            "periodSeconds": 1,
            "timeoutSeconds": 5,
        },
        "resources": resources,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": AGENT_UID,
            "runAsGroup": AGENT_UID,
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "volumeMounts": _agent_mounts(workload),
    }


def _agent_env(engine: LoRAEngine, workload: Workload, defaults: Defaults) -> list[Object]:
    values = {
        "BASE_MODEL": workload.base_model,
        "MAX_LORA_RANK": str(int(workload.flags.max_lora_rank or 16)),
        "ENGINE_URL": f"http://127.0.0.1:{workload.port}",
        "ENGINE_DEVICE": workload.device,
        "ADAPTERS_SIZE": str(int(amount(engine.spec.agent.adapters_size))),
        "READY_TIMEOUT_SECONDS": str(engine.spec.agent.ready_timeout_seconds),
    }
    values |= _flags_for_the_agent(workload.flags)
    if workload.base_mount and workload.base_path:
        values["BASE_MODEL_PATH"] = workload.base_path
    if workload.api_key:
        folder = _API_KEY_MOUNT_PATH if workload.api_key.secret else door.SECRET_MOUNT_PATH
        values["ENGINE_API_KEY_FILE"] = f"{folder}/{ENGINE_API_KEY}"
    env: list[Object] = [{"name": f"LORA_AGENT_{name}", "value": value} for name, value in values.items()]
    env += [
        {"name": "LORA_AGENT_POD_UID", "valueFrom": {"fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.uid"}}},
        {"name": "HOME", "value": "/tmp"},  # noqa: S108 - a volume of the pod's own
    ]
    taken = {entry["name"] for entry in env}
    return env + [entry for entry in defaults.env if entry["name"] not in taken]


def _flags_for_the_agent(flags: EngineFlags) -> dict[str, str]:
    given = {
        "ENGINE_DTYPE": flags.dtype,
        "LORA_DTYPE": flags.lora_dtype,
        "LORA_TARGET_MODULES": ",".join(flags.lora_target_modules or ()),
    }
    return {name: str(value) for name, value in given.items() if value}


def _agent_mounts(workload: Workload) -> list[Object]:
    mounts: list[Object] = [
        {"mountPath": door.ADAPTERS_PATH, "name": "lora-adapters"},
        {"mountPath": manifest.MOUNT_PATH, "name": "lora-manifest", "readOnly": True},
        {"mountPath": door.SECRET_MOUNT_PATH, "name": "lora-door", "readOnly": True},
        {"mountPath": "/tmp", "name": "lora-tmp"},  # noqa: S108 - a volume of the pod's own
    ]
    if workload.base_mount:
        mounts.append(workload.base_mount | {"name": "lora-base", "readOnly": True})
    if workload.api_key and workload.api_key.secret:
        mounts.append({"mountPath": _API_KEY_MOUNT_PATH, "name": "lora-engine-key", "readOnly": True})
    return mounts


def _volumes(name: str, engine: LoRAEngine, workload: Workload) -> list[Object]:
    limit = amount(engine.spec.agent.adapters_size) * 11 // 10
    volumes: list[Object] = [
        {"name": "lora-adapters", "emptyDir": {"sizeLimit": str(int(limit))}},
        {"name": "lora-manifest", "projected": {"sources": [_shard_source(name, i) for i in range(manifest.SHARDS)]}},
        {"name": "lora-door", "secret": {"secretName": door.secret_name(name), "optional": True}},
        {"name": "lora-tmp", "emptyDir": {}},
    ]
    if workload.base_volume:
        # Never the user's volume by name: that would make his removing or renaming it fail.
        volumes.append({"name": "lora-base"} | workload.base_volume)
    if workload.api_key and workload.api_key.secret:
        items = [{"key": workload.api_key.key, "path": ENGINE_API_KEY}]
        volumes.append({"name": "lora-engine-key", "secret": {"secretName": workload.api_key.secret, "items": items}})
    return volumes


def _shard_source(engine: str, index: int) -> Object:
    items = [{"key": manifest.DATA_KEY, "path": f"{index}.json"}]
    return {"configMap": {"name": manifest.shard_name(engine, index), "items": items, "optional": True}}
