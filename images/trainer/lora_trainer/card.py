"""The model card that is published with an adapter: where it comes from, how it was made, how to serve it. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import yaml

from lora_trainer.data import Data
from lora_trainer.spec import TrainSpec, published_to
from lora_trainer.train import Trained


@dataclass(frozen=True, kw_only=True, slots=True)
class Lineage:
    """What the spec's names stood for in this run, and what came out."""

    base_revision: str
    dataset_name: str
    dataset_revision: str
    dataset_on_hub: bool
    dataset_rows: int
    steps: int
    metrics: Mapping[str, str]
    job_uid: str
    libraries: Mapping[str, str]


def lineage(trained: Trained, *, dataset: Data, base_revision: str, job_uid: str) -> Lineage:
    """Return what this run's parts say."""
    return Lineage(
        base_revision=base_revision,
        dataset_name=dataset.name,
        dataset_revision=dataset.revision,
        dataset_on_hub=dataset.on_hub,
        dataset_rows=dataset.rows,
        steps=trained.steps,
        metrics=trained.metrics,
        job_uid=job_uid,
        libraries=trained.libraries,
    )


def render(spec: TrainSpec, run: Lineage) -> str:
    """Return README.md."""
    return f"---\n{_front_matter(spec, run)}---\n\n{_body(spec, run)}"


def _front_matter(spec: TrainSpec, run: Lineage) -> str:
    values: dict[str, object] = {
        "base_model": spec.base_model.name,
        "base_model_relation": "adapter",
        "library_name": "peft",
        "pipeline_tag": "text-generation",
        "tags": ["lora", spec.method.value.lower(), "lora-operator"],
    }
    if run.dataset_on_hub:
        values["datasets"] = [run.dataset_name]
    return yaml.safe_dump(values, sort_keys=False)


def _body(spec: TrainSpec, run: Lineage) -> str:
    repo, base = published_to(spec).repo or "adapter", spec.base_model.name
    recipe = {
        "method": spec.method.value,
        "lora": spec.lora.model_dump(mode="json", by_alias=True),
        "training": spec.training.model_dump(mode="json", by_alias=True, exclude_none=True),
    }
    sections = [
        f"# {repo}",
        f"A LoRA adapter for [{base}](https://huggingface.co/{base}), trained by lora-operator.",
        "## Lineage",
        _table(
            {
                "base model": f"{base} at `{run.base_revision}`",
                "data set": f"{run.dataset_name} at `{run.dataset_revision}`, {run.dataset_rows} rows, "
                f"format {spec.dataset.format.value}",
                "training job": f"`{run.job_uid}`" if run.job_uid else "by hand",
                "libraries": ", ".join(f"{name} {version}" for name, version in run.libraries.items()),
            }
        ),
        "## Recipe",
        f"```yaml\n{yaml.safe_dump(recipe, sort_keys=False)}```",
        "## Result",
        _table({"optimiser steps": str(run.steps), **run.metrics}),
        "## Serving it",
        f"```\nvllm serve {base} --enable-lora --max-lora-rank {_slot(spec.lora.r)} --lora-modules adapter={repo}\n```",
    ]
    return "\n\n".join(sections) + "\n"


def _table(values: Mapping[str, str]) -> str:
    return "\n".join(["| | |", "|---|---|", *(f"| {name} | {value} |" for name, value in values.items())])


def _slot(rank: int) -> int:
    """Return the smallest rank that vLLM's --max-lora-rank takes and this adapter fits."""
    return min(size for size in (1, 8, 16, 32, 64, 128, 256, 320, 512) if size >= rank)
