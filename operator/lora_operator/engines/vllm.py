"""vLLM: what its command line says, and what the operator has to know of it to adopt it. Pure.

Measured against vLLM 0.32; flags are read and never written.
"""

from __future__ import annotations

import contextlib
import itertools
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from pydantic import ValidationError

from lora_operator.api.lora_engine import EngineDtype, EngineFlags, MaxLoraRank
from lora_operator.engines.command_line import UnreadableError, base_name, commands, literal_env
from lora_operator.engines.refusal import Refusal

Object = dict[str, Any]

RUNTIME_UPDATES: Final = "VLLM_ALLOW_RUNTIME_LORA_UPDATING"
"""Without this variable, vLLM has no route that loads an adapter."""
TRAP_SERVICE: Final = "vllm"
"""A Service of this name gives every pod of its namespace, by service links, a VLLM_PORT that vLLM dies of."""
TRAP_VARIABLE: Final = "VLLM_PORT"
DEFAULT_PORT: Final = 8000
API_KEY_VARIABLE: Final = "VLLM_API_KEY"
ANY_ADDRESS: Final = "0.0.0.0"  # noqa: S104 - read, never bound
_LOCAL_HOSTS: Final = frozenset({"", ANY_ADDRESS, "::", "127.0.0.1", "localhost"})
"""The values of --host with which vLLM answers on 127.0.0.1, where the agent asks it."""

_HUB_ID: Final = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")
_SHORT: Final = {"-dp": "--data-parallel-size", "-asc": "--api-server-count"}
_MODULE: Final = "vllm.entrypoints.openai.api_server"
_SEVERAL_PODS: Final = (
    "--headless",
    "--data-parallel-hybrid-lb",
    "--data-parallel-external-lb",
    "--data-parallel-rank",
)
_MODULES: Final = "--lora-target-modules"
"""The one flag here that takes several words."""
_SWITCHES: Final = frozenset({"--enable-lora", "--no-enable-lora", *_SEVERAL_PODS[:3]})
_READ: Final = frozenset(
    {
        *("--model", "--served-model-name", "--port", "--uds", "--api-key", "--ssl-keyfile", "--nnodes"),
        *(
            "--max-lora-rank",
            "--max-loras",
            "--max-cpu-loras",
            "--api-server-count",
            "--data-parallel-size",
            "--config",
        ),
        *_SWITCHES,
        *_SEVERAL_PODS,
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """An engine's command line, as far as it matters here; the defaults are vLLM's own."""

    model: str | None = None
    served_name: str | None = None
    enable_lora: bool = False
    flags: EngineFlags
    host: str = ANY_ADDRESS
    port: int = DEFAULT_PORT
    uds: bool = False
    tls: bool = False
    api_server_count: int = 1
    several_pods: str | None = None
    """The flag that makes one engine out of several pods."""
    api_key: str | None = None
    """The key itself, where the command line has it: never to be shown."""


def names_engine(container: Object) -> bool:
    """Tell whether a container's command, arguments or image names vLLM."""
    words = " ".join([*container.get("command", []), *container.get("args", [])]).replace("\n", " ").split()
    runs = any(base_name(word.strip("'\"")) == "vllm" or word.startswith("vllm.") for word in words)
    return runs or image_names_engine(container)


def image_names_engine(container: Object) -> bool:
    """Tell whether the image's own name, without registry and tag, names vLLM."""
    return "vllm" in base_name(container.get("image", "").split("@")[0]).split(":")[0]


def device(container: Object) -> str:
    """Return `cpu`, or `cuda` for any accelerator: some adapters are served right on one only."""
    if any("gpu" in name for name in (container.get("resources") or {}).get("limits") or {}):
        return "cuda"
    env = literal_env(container)
    says_cpu = env.get("VLLM_TARGET_DEVICE") == "cpu" or any(name.startswith("VLLM_CPU_") for name in env)
    return "cpu" if says_cpu or "cpu" in base_name(container.get("image", "")) else "cuda"


def allows_runtime_updates(value: str) -> bool:
    """Tell whether vLLM reads this value of RUNTIME_UPDATES as yes."""
    return value.strip().lower() in {"1", "true"}


def read_command(container: Object) -> Command | str:
    """Return the command line, or why it can't be read."""
    try:
        return _command(_Given.parse(_arguments(container)))
    except UnreadableError as error:
        return str(error)


def read_around(container: Object, flags: EngineFlags, *, port: int) -> Command:
    """Return a command line that can't be read: what is told of it, and what there is to see of where it listens."""
    try:
        given = _Given.parse(_arguments(container), strict=False)
    except UnreadableError:
        return Command(enable_lora=True, flags=flags, port=port)
    with contextlib.suppress(UnreadableError):
        port = given.number("--port", port) or port
    return Command(enable_lora=True, flags=flags, port=port, **_listening(given))


def literal_api_key(container: Object) -> str | None:
    """Return the engine's API key where the pod template itself has it."""
    command = read_command(container)
    given = None if isinstance(command, str) else command.api_key
    return given or literal_env(container).get(API_KEY_VARIABLE) or None


def base_model(command: Command) -> str | Refusal:
    """Return the base model's id: --model, or the served name where that has an id's form and --model is a path."""
    if command.model is not None and _HUB_ID.fullmatch(command.model):
        return command.model
    served = command.served_name or ""
    if "/" in served and _HUB_ID.fullmatch(served):
        return served
    return Refusal(
        "BaseModelUnknown",
        f"the engine's --model is {command.model or 'not given'}, which is no id on the Hub: set spec.baseModel",
    )


def not_one(containers: Sequence[Object], engines: Sequence[Object]) -> Refusal:
    """Refuse a pod template in which more than one container, or none, names vLLM."""
    if engines:
        several = ", ".join(container["name"] for container in engines)
        return Refusal(
            "EngineContainerNotFound", f"more than one container names vLLM: set spec.container to one of {several}"
        )
    names = ", ".join(container["name"] for container in containers)
    return Refusal(
        "NotVLLM",
        f"no container names vLLM in its command, args or image ({names}): target a Deployment that runs vLLM, or"
        " set spec.container",
    )


def trapped(container: Object, deployment: Object) -> Refusal | None:
    """Refuse a pod template that TRAP_SERVICE, if there is one, would break."""
    links = deployment["spec"]["template"]["spec"].get("enableServiceLinks", True)
    sets_itself = any(entry["name"] == TRAP_VARIABLE for entry in container.get("env", []))
    if links is False or sets_itself:
        return None
    return Refusal(
        "ServiceLinks",
        f"a Service called {TRAP_SERVICE} gives the engine's next pod a {TRAP_VARIABLE} that it dies of: set"
        f" enableServiceLinks: false in the pod template of Deployment {deployment['metadata']['name']}, or rename the"
        " Service",
    )


def unreadable(container: Object, why: str) -> Refusal:
    """Refuse a command line that can't be read, and of which spec does not tell enough either."""
    name = container["name"]
    if not names_engine(container):
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


def refused(command: Command, container: str) -> Refusal | None:
    """Refuse what can't have adapters loaded, pod by pod, over HTTP."""
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
    if command.host not in _LOCAL_HOSTS:
        return Refusal(
            "HostNotLocal",
            f"the engine listens on {command.host} only, and the agent asks it on 127.0.0.1: set --host {ANY_ADDRESS}"
            f" in container {container}, or remove --host",
        )
    if command.tls:
        return Refusal("EngineTLS", "the engine speaks TLS itself, which the agent does not: remove --ssl-keyfile")
    return None


def _arguments(container: Object) -> list[str]:
    """Return the words behind `vllm serve`, or behind the module that does the same."""
    run = commands(container)
    found = [arguments for command in run if (arguments := _invocation(command)) is not None]
    if len(found) > 1:
        raise UnreadableError("its script starts vLLM more than once")
    if found:
        return found[0]
    if not container.get("command") and image_names_engine(container) and len(run) == 1:
        return run[0][1:] if run[0][:1] == ["serve"] else run[0]  # the image's own entrypoint is `vllm serve`
    raise UnreadableError("it has no `vllm serve` and no `python -m vllm.entrypoints.openai.api_server`")


def _invocation(words: Sequence[str]) -> list[str] | None:
    for index, word in enumerate(words):
        if word == _MODULE:
            return list(words[index + 1 :])
        if base_name(word) in {"vllm", "vllm.entrypoints.cli.main"} and list(words[index + 1 : index + 2]) == ["serve"]:
            return list(words[index + 2 :])
    return None


@dataclass(frozen=True, slots=True)
class _Given:
    """Flags as they were given; the last one counts."""

    values: dict[str, str | None]
    positional: str | None

    @classmethod
    def parse(cls, words: Sequence[str], *, strict: bool = True) -> _Given:
        values: dict[str, str | None] = {}
        positional = words[0] if words and not words[0].startswith("-") else None
        unknown = [positional] if positional is not None and "$" in positional else []
        index = 0 if positional is None else 1
        while index < len(words):
            name, equals, value = words[index].partition("=")
            index += 1
            if not name.startswith("-"):
                unknown += [name] if "$" in name else []
                continue
            name = _SHORT.get(name, name.replace("_", "-"))
            given: str | None = value if equals else None
            if not equals and name not in _SWITCHES:
                follow = _values(words[index:], several=name == _MODULES)
                given = " ".join(follow) or None
                index += len(follow)
            values[name] = given
            if name in _READ and "$" in (given or ""):
                unknown.append(name)
        if strict and unknown:
            raise UnreadableError(f"{', '.join(unknown)} depends on what only the running container knows")
        if strict and "--config" in values:
            raise UnreadableError("its flags are in the file that --config names")
        return cls(values, positional)

    def number(self, name: str, default: int | None = None) -> int | None:
        if name not in self.values:
            return default
        try:
            return int(self.values[name] or "")
        except ValueError:
            raise UnreadableError(f"{name} {self.values[name]} is no number") from None

    def enables_lora(self) -> bool:
        names = [name for name in self.values if name in {"--enable-lora", "--no-enable-lora"}]
        if not names or names[-1] == "--no-enable-lora":
            return False
        return (self.values["--enable-lora"] or "true").lower() not in {"false", "0"}


def _values(words: Sequence[str], *, several: bool) -> list[str]:
    """Return the words that are a flag's value: the next one, or all up to the next flag."""
    found = list(itertools.takewhile(lambda word: not word.startswith("-"), words))
    return found if several else found[:1]


def _flags(given: _Given) -> EngineFlags:
    rank = given.number("--max-lora-rank", 16)
    if rank not in set(MaxLoraRank):
        raise UnreadableError(f"--max-lora-rank {rank} is none of the ranks that vLLM takes")
    max_loras = given.number("--max-loras", 1)
    try:
        return EngineFlags(
            max_lora_rank=MaxLoraRank(rank),
            max_loras=max_loras,
            max_cpu_loras=given.number("--max-cpu-loras", max_loras),
            dtype=_dtype(given, "--dtype"),
            lora_dtype=_dtype(given, "--lora-dtype"),
            lora_target_modules=_target_modules(given),
        )
    except ValidationError as error:
        raise UnreadableError("--max-loras or --max-cpu-loras is out of range") from error


def _dtype(given: _Given, name: str) -> EngineDtype | None:
    """Return a dtype; None where it is not known, which is no reason not to adopt."""
    with contextlib.suppress(ValueError):
        return EngineDtype(given.values.get(name, "auto") or "")
    return None


def _target_modules(given: _Given) -> tuple[str, ...] | None:
    """Return the modules that adapters are applied on; None for all of them, or where they are not known."""
    names = tuple(dict.fromkeys((given.values.get(_MODULES) or "").split()))
    with contextlib.suppress(ValidationError):
        if names and not any("$" in name for name in names):
            return EngineFlags(lora_target_modules=names).lora_target_modules
    return None


def _listening(given: _Given) -> dict[str, Any]:
    return {
        "host": given.values.get("--host", ANY_ADDRESS) or "",
        "uds": "--uds" in given.values,
        "tls": "--ssl-keyfile" in given.values,
    }


def _command(given: _Given) -> Command:
    parallel = given.number("--data-parallel-size", 1)
    several_nodes = (given.number("--nnodes", 1) or 1) > 1
    return Command(
        model=given.values.get("--model") or given.positional,
        served_name=given.values.get("--served-model-name"),
        enable_lora=given.enables_lora(),
        flags=_flags(given),
        port=given.number("--port") or DEFAULT_PORT,
        **_listening(given),
        api_server_count=given.number("--api-server-count", parallel) or 1,
        several_pods=next(
            (name for name in _SEVERAL_PODS if name in given.values), "--nnodes" if several_nodes else None
        ),
        api_key=given.values.get("--api-key"),
    )
