"""What the pass makes of somebody else's Deployment: the engine in it, or the reason why it can't be adopted. Pure.

The table of refusals, with those that its engine type adds (`engines/`): each names its cause and the field or flag to
change.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from lora_operator import labels
from lora_operator.api import LoRAEngine
from lora_operator.api.lora_engine import EngineFlags
from lora_operator.engines import vllm
from lora_operator.engines.refusal import Refusal
from lora_operator.lora_engine.ownership import managers

Object = dict[str, Any]

_OF_ONE_POD: Final = frozenset({"emptyDir", "ephemeral"})


@dataclass(frozen=True, slots=True)
class ApiKey:
    """Where the engine's API key is: a Secret's key, or (neither given) the pod template itself."""

    secret: str | None = None
    key: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """The engine in a Deployment: all that the injected patch depends on, and nothing else."""

    uid: str
    container: str
    base_model: str
    flags: EngineFlags
    port: int
    device: str
    runtime_updates: bool
    """Whether the variable that opens runtime loading is ours to set."""
    api_key: ApiKey | None = None
    base_path: str | None = None
    base_volume: Object | None = None
    """The source of the user's volume that holds the base model, without its name."""
    base_mount: Object | None = None


def read(engine: LoRAEngine, deployment: Object | None, *, trap: bool, rivals: frozenset[str]) -> Workload | Refusal:
    """Return the engine in the Deployment, or the first reason against adopting it."""
    name = engine.spec.target_ref.name
    if deployment is None:
        return Refusal(
            "DeploymentNotFound",
            f"there is no Deployment {name} in namespace {engine.metadata.namespace}: create it, or a LoRAEngine whose"
            " spec.targetRef.name names another",
        )
    if owner := _controller(deployment):
        return Refusal(
            "OwnedByController",
            f"Deployment {name} belongs to {owner}, which would undo what adopting adds: spec.targetRef must name a"
            " Deployment that no controller owns",
        )
    if (holder := holder_of(deployment)) in rivals:
        return Refusal(
            "TargetTaken",
            f"Deployment {name} is adopted by LoRAEngine {holder}: delete one of the two, or target another Deployment",
        )
    container = _engine_container(engine, deployment)
    if isinstance(container, Refusal):
        return container
    if trap and (refusal := vllm.trapped(container, deployment)):
        return refusal
    return _engine(engine, deployment, container)


def _engine(engine: LoRAEngine, deployment: Object, container: Object) -> Workload | Refusal:
    command = vllm.read_command(container)
    if isinstance(command, str):
        if (given := _given_by_hand(engine, container)) is None:
            return vllm.unreadable(container, command)
        command = given
    if refusal := vllm.refused(command, container["name"]):
        return refusal
    base_model = engine.spec.base_model or vllm.base_model(command)
    if isinstance(base_model, Refusal):
        return base_model
    runtime_updates = _sets_runtime_updates(deployment, container)
    if isinstance(runtime_updates, Refusal):
        return runtime_updates
    volume, mount = _base_volume(command.model, deployment, container)
    return Workload(
        uid=deployment["metadata"]["uid"],
        container=container["name"],
        base_model=base_model,
        flags=command.flags,
        port=command.port,
        device=vllm.device(container),
        runtime_updates=runtime_updates,
        api_key=_api_key(command, container),
        base_path=command.model if mount else None,
        base_volume=volume,
        base_mount=mount,
    )


def holder_of(deployment: Object) -> str | None:
    """Return the name of the LoRAEngine that has adopted the Deployment."""
    name: str | None = (deployment["metadata"].get("labels") or {}).get(labels.ENGINE)
    return name


def containers(deployment: Object) -> list[Object]:
    """Return the containers of the pod template."""
    found: list[Object] = deployment["spec"]["template"]["spec"]["containers"]
    return found


def _controller(deployment: Object) -> str:
    owners = deployment["metadata"].get("ownerReferences") or []
    return next((f"{owner['kind']} {owner['name']}" for owner in owners if owner.get("controller")), "")


def _engine_container(engine: LoRAEngine, deployment: Object) -> Object | Refusal:
    found = containers(deployment)
    names = ", ".join(container["name"] for container in found)
    if wanted := engine.spec.container:
        chosen = next((container for container in found if container["name"] == wanted), None)
        return chosen or Refusal(
            "EngineContainerNotFound",
            f"the Deployment has no container {wanted}: set spec.container to one of {names}",
        )
    engines = [container for container in found if vllm.names_engine(container)]
    return engines[0] if len(engines) == 1 else vllm.not_one(found, engines)


def _given_by_hand(engine: LoRAEngine, container: Object) -> vllm.Command | None:
    """Return what spec says of an engine whose command line can't be read."""
    flags = engine.spec.flags
    if flags is None or flags.max_lora_rank is None or engine.spec.base_model is None:
        return None
    return vllm.read_around(container, flags, port=_declared_port(container))


def _declared_port(container: Object) -> int:
    """Return the API's port among those that the engine's container declares: vLLM's own, or the one called http."""
    ports = {port["containerPort"]: port.get("name") for port in container.get("ports", [])}
    if not ports or vllm.DEFAULT_PORT in ports:
        return vllm.DEFAULT_PORT
    called = [port for port, name in ports.items() if name == "http"]
    return int([*called, *ports][0])


def _sets_runtime_updates(deployment: Object, container: Object) -> bool | Refusal:
    entry = next((entry for entry in container.get("env", []) if entry["name"] == vllm.RUNTIME_UPDATES), None)
    if entry is None:
        return True
    path = (
        *("f:spec", "f:template", "f:spec", "f:containers", f'k:{{"name":"{container["name"]}"}}'),
        *("f:env", f'k:{{"name":"{vllm.RUNTIME_UPDATES}"}}'),
    )
    holders = managers(deployment, path)
    if labels.FIELD_MANAGER in holders and "valueFrom" not in entry:
        return True
    if "valueFrom" not in entry and vllm.allows_runtime_updates(entry.get("value", "")):
        return False
    holder = ", ".join(holders) or "its author"
    return Refusal(
        "FieldConflict",
        f"{holder} sets {vllm.RUNTIME_UPDATES} of container {container['name']} to another value than True: set it to"
        " True there, or remove it",
    )


def _api_key(command: vllm.Command, container: Object) -> ApiKey | None:
    if command.api_key:
        return ApiKey()
    entry = next((entry for entry in container.get("env", []) if entry["name"] == vllm.API_KEY_VARIABLE), None)
    if entry is None:
        return None
    ref = entry.get("valueFrom", {}).get("secretKeyRef")
    return ApiKey(ref["name"], ref["key"]) if ref else ApiKey()


def _base_volume(path: str | None, deployment: Object, container: Object) -> tuple[Object | None, Object | None]:
    """Return source and mount of the user's volume that the base model lies on, for a volume entry of our own."""
    if path is None or not path.startswith("/"):
        return None, None
    mounts = [
        mount
        for mount in container.get("volumeMounts", [])
        if f"{path}/".startswith(mount["mountPath"].rstrip("/") + "/") and "subPathExpr" not in mount
    ]
    mount = max(mounts, key=lambda mount: len(mount["mountPath"]), default=None)
    volumes = {volume["name"]: volume for volume in deployment["spec"]["template"]["spec"].get("volumes", [])}
    if mount is None or mount["name"] not in volumes:
        return None, None
    source = {name: value for name, value in volumes[mount["name"]].items() if name != "name"}
    if _OF_ONE_POD & source.keys():
        return None, None
    return source, {name: mount[name] for name in ("mountPath", "subPath") if name in mount}
