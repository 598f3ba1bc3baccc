"""Where an adapter comes from: what the spec's names stood for, with fingerprints of what was really read."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from lora_operator.adapter import header_range
from lora_operator.protocol.training import GateVerdict
from lora_trainer.base import BaseModel
from lora_trainer.data import Data
from lora_trainer.train import Trained

MEASURED: Final = "eval_"


@dataclass(frozen=True, kw_only=True, slots=True)
class Lineage:
    """What the spec's names stood for in this run, and what came out."""

    base_revision: str
    base_fingerprint: str = ""
    dataset_name: str
    dataset_revision: str
    dataset_fingerprint: str = ""
    dataset_on_hub: bool
    dataset_rows: int
    steps: int
    metrics: Mapping[str, str]
    job_uid: str
    libraries: Mapping[str, str]
    evaluation: Mapping[str, str] = field(default_factory=dict)
    gate: GateVerdict | None = None
    resumed_from_step: int = 0
    world_size: int = 1


def of(trained: Trained, *, dataset: Data, base: BaseModel, job_uid: str, world_size: int) -> Lineage:
    """Return what this run's parts say."""
    measured = trained.evaluation or {}
    return Lineage(
        base_revision=base.revision,
        base_fingerprint=base_fingerprint(base.folder),
        dataset_name=dataset.name,
        dataset_revision=dataset.revision,
        dataset_fingerprint=dataset_fingerprint(dataset.dataset),
        dataset_on_hub=dataset.on_hub,
        dataset_rows=dataset.rows,
        steps=trained.steps,
        metrics=trained.metrics,
        job_uid=job_uid,
        libraries=trained.libraries,
        evaluation={name: f"{value:.6g}" for name, value in measured.items() if name.startswith(MEASURED)},
        gate=trained.gate,
        resumed_from_step=trained.resumed_from_step,
        world_size=world_size,
    )


def base_fingerprint(folder: Path) -> str:
    """Return a digest of the config and of the headers of the weights: names, types and shapes of every tensor."""
    digest = hashlib.sha256()
    for path in sorted(folder.glob("*.safetensors")):
        size = path.stat().st_size
        with path.open("rb") as file:
            prefix = b""
            while wanted := header_range(prefix, size):
                prefix += file.read(wanted[1] - wanted[0])
        digest.update(prefix)
    digest.update((folder / "config.json").read_bytes())
    return digest.hexdigest()


def dataset_fingerprint(rows: Any) -> str:
    """Return a digest of the rows that were trained on, in their order."""
    digest = hashlib.sha256()
    for row in rows:
        digest.update(json.dumps(row, sort_keys=True, default=str).encode() + b"\n")
    return digest.hexdigest()
