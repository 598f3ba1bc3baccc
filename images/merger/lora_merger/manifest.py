"""What is written beside the weights: config, index, the manifest, and the model card with the lineage. Pure.

Nothing in it tells the time or the place, so that a merge that was interrupted is the same byte for byte.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from lora_merger.arithmetic import WIDTHS
from lora_merger.described import Checkpoint, Finished
from lora_merger.plan import Plan
from lora_operator.adapter import Summary

VERSION: Final = 1
METHOD: Final = "weight + scaling * (B @ A) in float32, rounded once; as PEFT's merge_and_unload"
_TORCH_NAMES: Final = {"F32": "float32", "F16": "float16", "BF16": "bfloat16"}
_DTYPE_FIELDS: Final = ("dtype", "torch_dtype")


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """Base or adapter: the Hub's id, or no more than that it was a directory; the digests say what was in it."""

    repo: str | None
    revision: str | None
    licence: str | None
    gated: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Lineage:
    """All that a merged model comes from."""

    base: Origin
    adapter: Origin
    summary: Summary
    base_named: str | None
    """What the adapter's config calls its base."""
    vouched: Collection[str]
    """The files of the base whose sha256 is the Hub's word, and was not computed anew."""
    dtype: str | None
    versions: Mapping[str, str]


def manifest(lineage: Lineage, plan: Plan, shards: Sequence[Finished]) -> bytes:
    """Return lora-merge.json."""
    base = _origin(lineage.base) | {
        "files": {
            shard.name: {
                "size": planned.source_size,
                "sha256": shard.source_sha256,
                "sha256From": "hub" if shard.name in lineage.vouched else "computed",
            }
            for shard, planned in zip(shards, plan.shards, strict=True)
        }
    }
    adapter = _origin(lineage.adapter) | {
        "digest": lineage.summary.digest,
        "rank": lineage.summary.rank,
        "loraAlpha": lineage.summary.lora_alpha,
        "targetModules": list(lineage.summary.target_modules),
    }
    value = {
        "version": VERSION,
        "method": METHOD,
        "dtype": lineage.dtype and _TORCH_NAMES[lineage.dtype],
        "base": base,
        "adapter": adapter,
        "files": {shard.name: {"size": shard.size} for shard in shards},
        "tensorsMerged": len(plan.merges),
        "versions": dict(lineage.versions),
    }
    return (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode()


def config(data: bytes, dtype: str | None) -> bytes:
    """Return config.json: the base's own bytes, or with another dtype wherever it names one."""
    if dtype is None:
        return data
    value = json.loads(data)
    for part in (value, *(item for item in value.values() if isinstance(item, dict))):
        for name in _DTYPE_FIELDS:
            if name in part:
                part[name] = _TORCH_NAMES[dtype]
    return (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode()


def index(data: bytes, checkpoint: Checkpoint, dtype: str | None) -> bytes:
    """Return the index: the base's own bytes, or with another total size."""
    value = json.loads(data)
    if dtype is None or "metadata" not in value or "total_size" not in value["metadata"]:
        return data
    tensors = [tensor for shard in checkpoint.shards for tensor in shard.header.tensors.values()]
    value["metadata"]["total_size"] = sum(
        tensor.elements * WIDTHS[dtype] if tensor.dtype in WIDTHS else tensor.end - tensor.begin for tensor in tensors
    )
    return (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode()


def card(lineage: Lineage, plan: Plan) -> bytes:
    """Return README.md: front matter for the Hub, then the lineage for people."""
    base, adapter = _name(lineage.base, "a directory"), _name(lineage.adapter, "a directory")
    front = {
        "base_model": [origin.repo for origin in (lineage.base, lineage.adapter) if origin.repo],
        "base_model_relation": "merge",
        "library_name": "transformers",
        "license": lineage.base.licence,
        "tags": ["lora-merge"],
    }
    # JSON is YAML: nothing in a name or a licence can break out of it.
    lines = [f"{key}: {json.dumps(value)}" for key, value in front.items() if value]
    rows = {
        "base": base,
        "base's licence": lineage.base.licence or "not known: look it up before you pass this on",
        "base is gated": _gated(lineage.base),
        "adapter": adapter,
        "adapter's digest": f"`{lineage.summary.digest}`",
        "adapter's own word for its base": lineage.base_named or "none",
        "adapter's licence": lineage.adapter.licence or "not known",
        "weights changed": f"{len(plan.merges)}",
        "dtype": _TORCH_NAMES[lineage.dtype] if lineage.dtype else "the base's own",
        "made with": ", ".join(f"{name} {version}" for name, version in lineage.versions.items()),
    }
    table = "\n".join(["| | |", "|---|---|", *(f"| {name} | {_cell(value)} |" for name, value in rows.items())])
    text = (
        f"A LoRA adapter, merged into its base by `lora-merge`: {METHOD}.\n\n{table}\n\n"
        f"`lora-merge.json` has the sha256 of each of the base's weights files, and whose word that is.\n"
    )
    return ("---\n" + "\n".join(lines) + "\n---\n\n# A merged model\n\n" + text).encode()


def _origin(origin: Origin) -> dict[str, object]:
    return {"repo": origin.repo, "revision": origin.revision, "licence": origin.licence, "gated": origin.gated}


def _name(origin: Origin, otherwise: str) -> str:
    return f"{origin.repo} at `{origin.revision}`" if origin.repo else otherwise


def _gated(origin: Origin) -> str:
    match origin.gated:
        case None:
            return "not known"
        case "no":
            return "no"
        case how:
            return f"yes ({how}): the same terms hold for this model"


def _cell(text: str) -> str:
    return " ".join(text.replace("|", "\\|").splitlines())
