"""The agent's door: the HTTPS calls that the operator makes to the agent of one engine pod, and what it answers.

    PUT  /v1/shards/<index>                body: a manifest shard as written -> 204; 400 where it can't be read
    GET  /v1/report?instance=<id>&after=<seq>&wait=<s>
                                           long poll -> 200 Report: at once where the instance is another (or none is
                                           given) or the sequence is higher, as soon as it is, else after `wait`
    GET  /v1/base                          what the agent knows of the base -> 200 Base, 404 while unknown
    GET  /readyz, /healthz                 kubelet's probes, without a token

Every `/v1` call carries `Authorization: Bearer <token>`; else 401. The token, the certificate that the operator
pins, and the copies of Hub tokens come from the engine's Secret, mounted in the agent only.
"""

from __future__ import annotations

import hashlib
from enum import StrEnum
from typing import Any, Final, Literal

from pydantic import Field

from lora_operator.protocol.manifest import Wire

PORT: Final = 8473
"""The agent's port. Sidecar and engine share one network namespace: a rare number on purpose."""
SECRET_MOUNT_PATH: Final = "/etc/lora-agent/door"  # noqa: S105 - a path, no secret
TOKEN_KEY: Final = "token"  # noqa: S105 - the Secret's key
CERT_KEY: Final = "tls.crt"
PRIVATE_KEY_KEY: Final = "tls.key"
CREDENTIAL_PREFIX: Final = "hub-"
"""What the Secret's keys of Hub tokens begin with; nothing else in it may be shown to a Hub."""
ADAPTERS_PATH: Final = "/adapters"
"""The adapters volume, at the same path in the agent and in the engine: `/adapters/<sha256 hex of digest>/`."""


def secret_name(engine: str) -> str:
    """Return the name of the Secret beside the LoRAEngine called `engine`."""
    return f"{engine}-lora"


def credential_key(namespace: str, name: str, key: str) -> str:
    """Return the Secret key under which a copy of a tenant's Hub token lies: a hash of its origin."""
    origin = f"{namespace}/{name}/{key}"
    return f"{CREDENTIAL_PREFIX}{hashlib.sha256(origin.encode()).hexdigest()[:16]}"


class State(StrEnum):
    """Where one entry is on one pod. The name is the reason that a LoRAAdapter's status shows."""

    PENDING = "Pending"
    WAITING_FOR_CREDENTIALS = "WaitingForCredentials"
    FETCHING = "Fetching"
    LOADING = "Loading"
    PROBE_PENDING = "ProbePending"
    LOADED = "Loaded"
    FAILED = "Failed"
    UNLOADING = "Unloading"


class EntryReport(Wire):
    """One entry on one pod. `reason` (CamelCase) and `message` (<= 1024 characters) tell why it is not LOADED."""

    engine_name: str
    state: State
    reason: str = ""
    message: str = ""
    retry_seconds: float | None = None
    """Seconds until the agent tries again by itself; None where it waits for something else to change."""


class EngineReport(Wire):
    """What the agent sees of the engine beside it."""

    healthy: bool
    served: tuple[str, ...] = ()
    """Base names in `/v1/models`."""
    version: str = ""
    loads_since_start: int = 0


class Report(Wire):
    """What the agent says. `sequence` grows by one with every change; `instance` changes with every agent process."""

    version: Literal[1] = 1
    instance: str
    sequence: int
    agent_version: str
    shards: dict[str, int] = Field(default_factory=dict)
    """Shard index (as a string) -> the revision acted on."""
    ready: bool = False
    """What the agent tells kubelet."""
    engine: EngineReport
    entries: tuple[EntryReport, ...] = ()
    """Every engine name that the agent holds or should hold; one gone from here is unloaded. Its files are removed, or
    stay until the engine restarts where that does not tell whether a request still needs them."""
    base_known: bool = False


class Base(Wire):
    """What the agent read of the engine's base model: its `config.json`, and tensor shapes where it saw the headers."""

    name: str
    config: dict[str, Any]
    shapes: dict[str, tuple[int, ...]] | None = None
