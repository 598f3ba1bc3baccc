"""Names: which files of a repository belong to an adapter, the adapter's digest, and its name in the engine.

Pure; computable from the Hub's metadata and adapter_config.json alone, and the same everywhere.
"""

import hashlib
import re
from collections.abc import Collection, Iterable, Mapping

CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"
INDEX = "adapter_model.safetensors.index.json"
PICKLES = ("adapter_model.bin", "adapter_model.pt", "adapter_model.pth")

# What transformers or vLLM keep in one module, of which the parts are apart elsewhere.
JOINED = {"qkv_proj": ("q_proj", "k_proj", "v_proj"), "gate_up_proj": ("gate_proj", "up_proj")}

BASE_CONFIG = "config.json"

_SHARD = re.compile(r"adapter_model-\d{5}-of-\d{5}\.safetensors")
_SHA256 = re.compile(r"[0-9a-f]{64}")
# As huggingface_hub checks it; some models have no owner in front, like gpt2.
_HUB_ID = re.compile(r"(?:\b[\w.-]{1,96}\b/)?\b[\w.-]{1,96}\b", re.ASCII)


def weights_files(names: Iterable[str]) -> tuple[str, ...]:
    """Return, sorted, those of *names* that make up the adapter: its config and its weights, never a pickle.

    One file wins over shards, as it does in vLLM and PEFT. Names in folders belong to something else (checkpoints).
    """
    present = set(names)
    if WEIGHTS in present:
        return tuple(sorted(present & {CONFIG, WEIGHTS}))
    shards = {name for name in present if _SHARD.fullmatch(name)}
    return tuple(sorted((present & {CONFIG, INDEX}) | shards))


def stray_weights(names: Collection[str]) -> list[str]:
    """Return the first other safetensors file, where none of *names* is that of an adapter's weights."""
    if any(map(is_weights, names)):
        return []
    return sorted(name for name in names if name.endswith(".safetensors") and "/" not in name)[:1]


def is_hub_id(name: str) -> bool:
    """Tell whether *name* may be a repository on a Hub, `org/name` or `name`; else it is a path."""
    known = _HUB_ID.fullmatch(name) is not None
    return known and "--" not in name and ".." not in name and not name.endswith(".git")


def is_shard(name: str) -> bool:
    """Tell whether *name* is the plain name of one of several weights files."""
    return _SHARD.fullmatch(name) is not None


def base_weights_files(names: Iterable[str]) -> tuple[str, ...]:
    """Return, sorted, those of *names* that hold a base model's weights as transformers and vLLM load them.

    Some repositories carry the same weights once more under other names (`consolidated.safetensors`).
    """
    found = sorted(name for name in names if name.endswith(".safetensors") and "/" not in name)
    return tuple([name for name in found if name.startswith("model")] or found)


def is_weights(name: str) -> bool:
    """Tell whether *name* is a safetensors file of an adapter."""
    return name == WEIGHTS or is_shard(name)


def digest(files: Mapping[str, str]) -> str:
    """Return `sha256:...` over the lines `<sha256 of the file>  <file name>` of the adapter's files, sorted by name.

    *files* maps names to hex sha256; files that are no part of the adapter are left out.
    """
    lines = hashlib.sha256()
    for name in weights_files(files):
        if not _SHA256.fullmatch(files[name]):
            raise ValueError(f"{name}: not a sha256 in lower-case hex")
        lines.update(f"{files[name]}  {name}\n".encode())
    return f"sha256:{lines.hexdigest()}"


def engine_name(namespace: str, name: str, adapter_digest: str) -> str:
    """Return the name under which an engine holds this content: unique to it, so nothing is ever swapped in place."""
    algorithm, _, hexadecimal = adapter_digest.partition(":")
    if algorithm != "sha256" or not _SHA256.fullmatch(hexadecimal):
        raise ValueError(f"not a digest: {adapter_digest!r}")
    return f"{namespace}.{name}.{hexadecimal[:12]}"
