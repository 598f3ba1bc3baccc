"""Reading a base: its shards' headers, its index and its config, from a directory or from the Hub, without its weights.

Refuses what can't be merged into: quantised weights, pickles, an index that is not what the shards hold.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Final

from lora_merger.described import Checkpoint, Shard
from lora_merger.files import Files
from lora_merger.refusal import ExitCode, Refusal, not_mergeable
from lora_operator.adapter import CONFIG as ADAPTER_CONFIG
from lora_operator.adapter import (
    FIRST_GUESS,
    WEIGHTS,
    Adapter,
    FileFacts,
    HeaderError,
    from_parts,
    header_range,
    parse_header,
)

CONFIG: Final = "config.json"
SINGLE: Final = "model.safetensors"
INDEX: Final = "model.safetensors.index.json"
CARD: Final = "README.md"
MANIFEST: Final = "lora-merge.json"
_JSON_LIMIT: Final = 64 * 1024 * 1024
# Weights in other forms, and what describes the base itself rather than how to run it.
_LEFT_OUT_ENDS: Final = (".safetensors", ".bin", ".pt", ".pth", ".ckpt", ".h5", ".msgpack", ".gguf", ".ot", ".onnx")
_LEFT_OUT: Final = frozenset({CARD, CONFIG, INDEX, "pytorch_model.bin.index.json", "adapter_config.json", MANIFEST})


def read_checkpoint(files: Files) -> Checkpoint:
    """Read the base's headers, and refuse what can't be merged into."""
    names = files.names()
    if CONFIG not in names:
        raise Refusal(ExitCode.NOT_FOUND, f"the base has no {CONFIG}: it is no model in the form of transformers")
    config = read_json(files, CONFIG)
    _refuse_quantised(config)
    weights, index = _weights(files, names)
    shards = tuple(read_shard(files, name) for name in weights)
    if index is not None:
        _check_index(index, shards)
    carried = tuple(name for name in names if name not in _LEFT_OUT and not _is_left_out(name))
    return Checkpoint(config=config, shards=shards, indexed=index is not None, carried=carried)


def read_adapter(files: Files, sha256: Mapping[str, str]) -> Adapter:
    """Read an adapter's config and the header of its weights, as far as they are there."""
    facts = {name: FileFacts(files.size(name), sha256.get(name)) for name in files.names()}
    config = files.read(ADAPTER_CONFIG, 0, _JSON_LIMIT) if ADAPTER_CONFIG in facts else None
    head = b""
    if WEIGHTS in facts:
        try:
            head = read_head(files, WEIGHTS)
        except HeaderError:
            head = files.read(WEIGHTS, 0, FIRST_GUESS)  # where it is told what is wrong with it
    return from_parts(config, files=facts, headers={WEIGHTS: head})


def read_json(files: Files, name: str) -> dict[str, object]:
    """Read a JSON object from a file of the base."""
    if files.size(name) > _JSON_LIMIT:
        raise not_mergeable(f"{name} of the base has {files.size(name)} bytes: that is no description of a model")
    try:
        value = json.loads(files.read(name, 0, files.size(name)))
    except (ValueError, RecursionError) as error:
        raise not_mergeable(f"{name} of the base is not JSON: {error}") from error
    if not isinstance(value, dict):
        raise not_mergeable(f"{name} of the base is not a JSON object")
    return value


def _is_left_out(name: str) -> bool:
    return name.startswith(".") or name.endswith(_LEFT_OUT_ENDS)


def _refuse_quantised(config: Mapping[str, object]) -> None:
    text = config.get("text_config")
    quantised = config.get("quantization_config") or (
        text.get("quantization_config") if isinstance(text, dict) else None
    )
    if quantised:
        method = quantised.get("quant_method") if isinstance(quantised, dict) else None
        raise not_mergeable(
            f"the base is quantised (quantization_config in {CONFIG}: {method or 'of an unnamed method'}): an adapter "
            "can't be added to such weights exactly. Merge it into the unquantised base, then quantise the result"
        )


def _weights(files: Files, names: Sequence[str]) -> tuple[list[str], dict[str, object] | None]:
    """Return the shards' names and, where there are several, what the index says of each tensor."""
    if SINGLE in names:
        return [SINGLE], None
    if INDEX not in names:
        others = [name for name in names if name.endswith((".bin", ".pt", ".pth"))]
        why = f"only {others[0]}, which can run code when it is opened" if others else "none"
        raise not_mergeable(f"the base has no {SINGLE} and no {INDEX} ({why}): save it as safetensors first")
    index = read_json(files, INDEX).get("weight_map")
    if not isinstance(index, dict) or not index or not all(isinstance(name, str) for name in index.values()):
        raise not_mergeable(f"{INDEX} has no weight_map of tensors and files")
    shards = sorted(set(index.values()))
    for name in shards:
        if "/" in name or not name.endswith(".safetensors"):
            raise not_mergeable(f"{INDEX} names {name!r}, which is no safetensors file beside it")
        if name not in names:
            raise not_mergeable(f"{INDEX} names {name}, which is missing: the base is incomplete, fetch it again")
    return shards, index


def read_shard(files: Files, name: str) -> Shard:
    """Read one shard's header."""
    size = files.size(name)
    try:
        head = read_head(files, name)
        header = parse_header(head, size)
    except HeaderError as error:
        raise not_mergeable(f"{name} of the base: {error}. Fetch it again") from error
    return Shard(name=name, size=size, head=head[: header.data_start], header=header)


def read_head(files: Files, name: str) -> bytes:
    """Read the start of a safetensors file, up to the end of its header; HeaderError where it has none."""
    size = files.size(name)
    head = files.read(name, 0, min(FIRST_GUESS, size))
    while wanted := header_range(head, size):
        more = files.read(name, *wanted)
        if not more:
            break
        head += more
    return head


def _check_index(index: Mapping[str, object], shards: Sequence[Shard]) -> None:
    held = {tensor: shard.name for shard in shards for tensor in shard.header.tensors}
    if held != index or len(held) != sum(len(shard.header.tensors) for shard in shards):
        differing = sorted(name for name in held.keys() | index.keys() if held.get(name) != index.get(name))
        raise not_mergeable(f"{INDEX} is not what the shards hold, for instance {differing[:1]}: fetch the base again")
