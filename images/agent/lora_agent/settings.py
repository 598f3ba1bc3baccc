"""The agent's settings: the environment that the operator's patch gives the container, as one frozen value.

Read once in `__main__`; nothing below it looks at the environment.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from lora_operator.protocol import door, manifest

PREFIX: Final = "LORA_AGENT_"
PUBLIC_HUB: Final = "https://huggingface.co"


class SettingsError(ValueError):
    """A variable is missing or not of its type; the text names it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Every field but the Hub's two is `LORA_AGENT_<FIELD>` in the environment."""

    base_model: str
    """The engine's base as a Hub id: what its `config.json` is read from where no path is given."""
    adapters_size: int
    """The byte budget of the adapters volume."""
    pod_uid: str
    """Whose memory in the volume is ours: a pod of another uid starts anew."""
    max_lora_rank: int | None = None
    """The engine's `--max-lora-rank`; absent: unknown, the engine itself refuses."""
    base_model_path: Path | None = None
    """A directory with the base's `config.json`, where `--model` is a path that the agent mounts too."""
    engine_url: str = "http://127.0.0.1:8000"
    """Where the engine listens, in the network namespace that it shares with the agent."""
    engine_api_key_file: Path | None = None
    """A file with the engine's `--api-key`, where it has one."""
    engine_device: str = ""
    """`cpu` or `cuda`: some adapters are served right on one only; absent: unknown."""
    engine_dtype: str | None = None
    """The engine's `--dtype`; absent: unknown."""
    lora_dtype: str | None = None
    """The engine's `--lora-dtype`; absent: unknown."""
    lora_target_modules: tuple[str, ...] | None = None
    """The engine's `--lora-target-modules`, with commas between them; absent: all, or unknown."""
    ready_timeout_seconds: float = 120.0
    """How long after the engine's first healthy answer the pod waits for its adapters before it is Ready without."""
    poll_seconds: float = 2.0
    """How often what the engine has is compared with what it should have."""
    drain_seconds: float = 5.0
    """How long files outlive their unload at least: a request may have come in just before it and not show yet."""
    adapters_path: Path = Path(door.ADAPTERS_PATH)
    """The adapters volume, at the same path in the engine's container."""
    manifest_path: Path = Path(manifest.MOUNT_PATH)
    """The projected volume with the manifest's shards."""
    secret_path: Path = Path(door.SECRET_MOUNT_PATH)
    """The engine's Secret: token, certificate, copies of Hub tokens. Empty until kubelet brings it."""
    hub_endpoint: str = PUBLIC_HUB
    """`HF_ENDPOINT`: the Hub or a mirror."""
    hub_token: str | None = None
    """`HF_TOKEN`: for the base's `config.json` and headers only, never for an adapter."""

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> Settings:
        """Read the settings; an empty variable counts as absent."""
        given = {key: value for key, value in environment.items() if value}
        fields: dict[str, object] = {}
        for name, convert in _CONVERTERS.items():
            variable = f"{PREFIX}{name.upper()}"
            if variable in given:
                try:
                    fields[name] = convert(given[variable])
                except ValueError as error:
                    raise SettingsError(f"{variable}: {given[variable]!r} is not a {convert.__name__}") from error
            elif name in _REQUIRED:
                raise SettingsError(f"{variable} is not set")
        if "HF_ENDPOINT" in given:
            fields["hub_endpoint"] = given["HF_ENDPOINT"].rstrip("/")
        fields["hub_token"] = given.get("HF_TOKEN")
        return cls(**fields)  # type: ignore[arg-type]  # the table below gives each field its own type


def _words(text: str) -> tuple[str, ...]:
    return tuple(word.strip() for word in text.split(",") if word.strip())


_REQUIRED: Final = ("base_model", "adapters_size", "pod_uid")
_CONVERTERS: Final[dict[str, Callable[[str], object]]] = {
    "base_model": str,
    "adapters_size": int,
    "pod_uid": str,
    "max_lora_rank": int,
    "base_model_path": Path,
    "engine_url": str,
    "engine_api_key_file": Path,
    "engine_device": str,
    "engine_dtype": str,
    "lora_dtype": str,
    "lora_target_modules": _words,
    "ready_timeout_seconds": float,
    "poll_seconds": float,
    "drain_seconds": float,
    "adapters_path": Path,
    "manifest_path": Path,
    "secret_path": Path,
}
