"""The operator's settings: the environment, read once, into one frozen value. The chart writes every one of them."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass

PREFIX = "LORA_OPERATOR_"


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Each field is the variable LORA_OPERATOR_<FIELD>."""

    namespace: str = "lora-system"
    """The operator's own namespace."""
    watch_namespaces: tuple[str, ...] = ()
    """Namespaces to watch, comma-separated; empty: the whole cluster."""
    agent_image: str = "ghcr.io/lora-operator/agent:0.1.0"
    """The agent that newly adopted engines get."""
    trainer_image: str = "ghcr.io/lora-operator/trainer:0.1.0"
    """The image of trainer pods."""
    image_pull_secrets: tuple[str, ...] = ()
    """Names of image pull secrets for pods of ours, comma-separated; they must be in the pod's namespace."""
    pod_env: str = "[]"
    """JSON list of env entries (name, value) that agents and trainers get: HF_ENDPOINT, proxies, LORA_CA_BUNDLE, ..."""
    trainer_env: str = "[]"
    """JSON list of further env entries for every trainer pod."""
    trainer_volumes: str = "[]"
    """JSON list of volumes for every trainer pod."""
    trainer_volume_mounts: str = "[]"
    """JSON list of volumeMounts for every trainer container."""
    agent_resources: str = '{"requests": {"cpu": "100m", "memory": "256Mi"}, "limits": {"memory": "256Mi"}}'
    """JSON resources of the agent where the LoRAEngine says none."""
    trainer_resources: str = "{}"
    """JSON resources of the trainer where the LoRATrainingJob says none."""
    progress_url: str = ""
    """https URL under which trainer pods reach the operator; empty: no progress reports."""
    progress_port: int = 8443
    """The port that the progress endpoint listens on."""
    metrics_port: int = 8080
    """The port of /metrics, /healthz and /readyz."""
    workers: int = 8
    """Passes of one kind that run at the same time."""
    resync_seconds: int = 300
    """Seconds between two full LISTs, which heal what a watch lost."""
    cleanup_seconds: int = 300
    """Seconds after which a deletion stops waiting for engines."""
    log_level: str = "INFO"
    """A level of Python's logging."""

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> Settings:
        """Read the settings; raises ValueError naming the variable that is malformed."""
        values: dict[str, object] = {}
        for name, kind in cls.__annotations__.items():
            text = environment.get(PREFIX + name.upper())
            if text is None:
                continue
            values[name] = _parse(PREFIX + name.upper(), text, kind=str(kind))
        return cls(**values)  # type: ignore[arg-type]


def _parse(variable: str, text: str, *, kind: str) -> object:
    if kind.startswith("tuple"):
        return tuple(part.strip() for part in text.split(",") if part.strip())
    if kind == "int":
        try:
            return int(text)
        except ValueError:
            raise ValueError(f"{variable} must be a whole number, not {text!r}") from None
    return text
