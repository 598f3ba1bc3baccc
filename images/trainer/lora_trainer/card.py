"""The model card that is published with an adapter: where it comes from, how it was made, how to serve it. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import yaml

from lora_operator.api.training_run import Evaluation
from lora_operator.protocol.training import GateVerdict
from lora_trainer.lineage import Lineage
from lora_trainer.spec import TrainSpec, published_to

HEADING: Final = "# "


def render(spec: TrainSpec, run: Lineage, *, rank: int) -> str:
    """Return README.md. `rank` is the highest that the adapter has, which an engine must take."""
    return f"---\n{_front_matter(spec, run)}---\n\n{_body(spec, run, rank)}"


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


def _body(spec: TrainSpec, run: Lineage, rank: int) -> str:
    repo, base = published_to(spec).repo or "adapter", spec.base_model.name
    recipe = {
        "method": spec.method.value,
        "lora": spec.lora.model_dump(mode="json", by_alias=True),
        "training": spec.training.model_dump(mode="json", by_alias=True, exclude_none=True),
    }
    heading, served, adapter = _named(repo, base)
    sections = [
        heading,
        f"A LoRA adapter for [{base}](https://huggingface.co/{base}), trained by lora-operator.",
        "## Lineage",
        _table(
            {
                "base model": f"{base} at `{run.base_revision}`",
                "its fingerprint": f"`{run.base_fingerprint}` (sha256 of the weights' headers and the config)",
                "data set": f"{run.dataset_name} at `{run.dataset_revision}`, {run.dataset_rows} rows, "
                f"format {spec.dataset.format.value}",
                "fingerprint of the rows": f"`{run.dataset_fingerprint}`",
                "training job": f"`{run.job_uid}`" if run.job_uid else "by hand",
                "libraries": ", ".join(f"{name} {version}" for name, version in run.libraries.items()),
            }
        ),
        "## Recipe",
        f"```yaml\n{yaml.safe_dump(recipe, sort_keys=False)}```",
        "## Result",
        _table({"optimiser steps": str(run.steps), **_passed_on(run), **run.metrics}),
        "![loss by optimiser step](loss.svg)",
        *_evaluation(spec.evaluation, run.evaluation, run.gate),
        "## Serving it",
        "With vLLM:",
        f"```\nvllm serve {base} --enable-lora --max-lora-rank {_slot(rank)} {served}\n```",
        "With lora-operator, on a LoRAEngine of this base:",
        f"```yaml\n{adapter}\n```",
    ]
    return "\n\n".join(sections) + "\n"


def renamed(text: str, repo: str) -> str:
    """Return a card under the name of the repository that it is published in: the training may not have known it."""
    base = str(yaml.safe_load(text.split("---\n")[1])["base_model"])
    before = next(line.removeprefix(HEADING) for line in text.splitlines() if line.startswith(HEADING))
    for old, new in zip(_named(before, base), _named(repo, base), strict=True):
        text = text.replace(f"{old}\n", f"{new}\n", 1)
    return text


def _named(repo: str, base: str) -> tuple[str, str, str]:
    """Return the parts of a card that name the repository."""
    adapter = yaml.safe_dump(_adapter(repo, base), sort_keys=False).rstrip()
    return f"{HEADING}{repo}", f"--lora-modules adapter={repo}", adapter


def _passed_on(run: Lineage) -> dict[str, str]:
    told = {"processes": str(run.world_size)} if run.world_size > 1 else {}
    return told | ({"resumed from step": str(run.resumed_from_step)} if run.resumed_from_step else {})


def _evaluation(wanted: Evaluation | None, measured: Mapping[str, str], verdict: GateVerdict | None) -> list[str]:
    """Return the section about the rows that were not trained on."""
    if wanted is None or not measured:
        return []
    rows = f"split {wanted.split}" if wanted.split is not None else f"{wanted.fraction} of the rows, held back"
    section = ["## Evaluation", f"On {rows}.", _table(measured)]
    if verdict is not None:
        words = f"{verdict.metric} {verdict.value}, the limit of {verdict.against} is {verdict.limit or 'none'}"
        section.append(f"Gate: {'passed' if verdict.passed else 'not passed'} ({words}).")
    return section


def _adapter(repo: str, base: str) -> dict[str, object]:
    spec = {"source": {"hub": {"repo": repo}}, "baseModel": base, "engineRef": {"name": "<your LoRAEngine>"}}
    name = repo.rpartition("/")[2].lower().replace("_", "-")
    return {
        "apiVersion": "lora-operator.io/v1alpha1",
        "kind": "LoRAAdapter",
        "metadata": {"name": name},
        "spec": spec,
    }


def _table(values: Mapping[str, str]) -> str:
    return "\n".join(["| | |", "|---|---|", *(f"| {name} | {value} |" for name, value in values.items())])


def _slot(rank: int) -> int:
    """Return the smallest rank that vLLM's --max-lora-rank takes and this adapter fits."""
    return min(size for size in (1, 8, 16, 32, 64, 128, 256, 320, 512) if size >= rank)
