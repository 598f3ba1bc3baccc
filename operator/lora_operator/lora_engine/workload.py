"""What the pass makes of somebody else's Deployment: the engine in it, or the reason why it can't be adopted. Pure.

The table of refusals: each names its cause and the field or flag to change.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Final

from lora_operator import labels
from lora_operator.api import LoRAEngine
from lora_operator.api.lora_engine import EngineFlags
from lora_operator.engines import vllm
from lora_operator.engines.command_line import literal_env
from lora_operator.lora_engine.ownership import managers

Object = dict[str, Any]

API_KEY_VARIABLE: Final = "VLLM_API_KEY"
_HUB_ID: Final = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")
_OF_ONE_POD: Final = frozenset({"emptyDir", "ephemeral"})


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a Deployment is not adopted: a condition's reason, and a sentence with what to change."""

    reason: str
    message: str


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
    if trap and _trapped(container, deployment):
        return Refusal(
            "ServiceLinks",
            f"a Service called {vllm.TRAP_SERVICE} gives the engine's next pod a {vllm.TRAP_VARIABLE} that it dies of:"
            f" set enableServiceLinks: false in the pod template of Deployment {name}, or rename the Service",
        )
    return _engine(engine, deployment, container)


def _engine(engine: LoRAEngine, deployment: Object, container: Object) -> Workload | Refusal:
    command = vllm.read_command(container)
    if isinstance(command, str):
        if (given := _given_by_hand(engine, container)) is None:
            return _unreadable(container, command)
        command = given
    if refusal := _refused(command, container["name"]):
        return refusal
    base_model = engine.spec.base_model or _base_model(command)
    if base_model is None:
        return Refusal(
            "BaseModelUnknown",
            f"the engine's --model is {command.model or 'not given'}, which is no id on the Hub: set spec.baseModel",
        )
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


def literal_api_key(container: Object) -> str | None:
    """Return the engine's API key where the pod template itself has it."""
    command = vllm.read_command(container)
    given = None if isinstance(command, str) else command.api_key
    return given or literal_env(container).get(API_KEY_VARIABLE) or None


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
    if len(engines) > 1:
        several = ", ".join(container["name"] for container in engines)
        return Refusal(
            "EngineContainerNotFound", f"more than one container names vLLM: set spec.container to one of {several}"
        )
    if not engines:
        return Refusal(
            "NotVLLM",
            f"no container names vLLM in its command, args or image ({names}): target a Deployment that runs vLLM, or"
            " set spec.container",
        )
    return engines[0]


def _trapped(container: Object, deployment: Object) -> bool:
    links = deployment["spec"]["template"]["spec"].get("enableServiceLinks", True)
    sets_itself = any(entry["name"] == vllm.TRAP_VARIABLE for entry in container.get("env", []))
    return links is not False and not sets_itself


def _given_by_hand(engine: LoRAEngine, container: Object) -> vllm.Command | None:
    """Return what spec says of an engine whose command line can't be read."""
    flags = engine.spec.flags
    if flags is None or flags.max_lora_rank is None or engine.spec.base_model is None:
        return None
    ports = container.get("ports") or [{"containerPort": vllm.DEFAULT_PORT}]
    return vllm.Command(enable_lora=True, flags=flags, port=ports[0]["containerPort"])


def _unreadable(container: Object, why: str) -> Refusal:
    name = container["name"]
    if not vllm.names_engine(container):
        return Refusal(
            "NotVLLM",
            f"container {name} does not run vLLM as far as its command, args and image tell: set spec.container to the"
            " one that does, or tell what they don't in spec.flags.maxLoraRank and spec.baseModel",
        )
    return Refusal(
        "FlagsUnreadable",
        f"the command of container {name} can't be read: {why}. Set spec.flags.maxLoraRank and spec.baseModel to what"
        " the engine runs with (and start it with --enable-lora)",
    )


def _refused(command: vllm.Command, container: str) -> Refusal | None:
    if not command.enable_lora:
        return Refusal("LoRANotEnabled", f"the engine serves no adapters: add --enable-lora to container {container}")
    if command.several_pods:
        return Refusal(
            "SeveralPods",
            f"{command.several_pods} spreads one engine over several pods, and adapters are loaded pod by pod:"
            " remove it",
        )
    if command.api_server_count > 1:
        return Refusal(
            "ApiServerCount",
            f"vLLM loads adapters at run time with one API server only, and this one has {command.api_server_count}:"
            " set --api-server-count 1 (--data-parallel-size raises it where it is not set)",
        )
    if command.uds:
        return Refusal("UnixSocket", "the engine listens on a Unix socket that the agent can't reach: remove --uds")
    if command.tls:
        return Refusal("EngineTLS", "the engine speaks TLS itself, which the agent does not: remove --ssl-keyfile")
    return None


def _base_model(command: vllm.Command) -> str | None:
    """Return the base model's id: --model, or the served name where that has an id's form and --model is a path."""
    if command.model is not None and _HUB_ID.fullmatch(command.model):
        return command.model
    served = command.served_name or ""
    return served if "/" in served and _HUB_ID.fullmatch(served) else None


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
    entry = next((entry for entry in container.get("env", []) if entry["name"] == API_KEY_VARIABLE), None)
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
