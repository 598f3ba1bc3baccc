"""The spec as lora-train reads it: a LoRATrainingJob's, the engine as the operator read it, and what a person may add.

By hand, base, data set and an adapter to go on from may lie in folders, and nothing need be published. Paths are
relative to the spec's own folder.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final

from pydantic import Field

from lora_operator.api.dataset import Dataset, DatasetSource
from lora_operator.api.lora import InitFrom, Lora
from lora_operator.api.lora_training_job import JobSpec
from lora_operator.api.schema import Model
from lora_operator.api.training import BaseModelSource, HubOutput, Output


class Engine(Model):
    """What the adapter must be servable on: what the operator read of `engineRef`, or what a person wrote."""

    type: str = "VLLM"
    version: str | None = None
    device: str | None = None
    max_lora_rank: Annotated[int, Field(ge=1)] | None = None
    dtype: str | None = None


class TrainBase(BaseModelSource):
    """The base: `name` is what it is called, `path` the folder where it lies if it is not to come from the Hub."""

    path: str | None = None


class TrainSource(DatasetSource):
    """Where the data set comes from."""

    path: str | None = None


class TrainDataset(Dataset):
    """The data set."""

    source: TrainSource


class TrainStart(InitFrom):
    """The adapter to go on from."""

    path: str | None = None


class TrainLora(Lora):
    """The adapter's shape."""

    init_from: TrainStart | None = None


class TrainOutput(Output):
    """What becomes of the adapter: without `hub` it stays in the output folder."""

    hub: HubOutput | None = None  # type: ignore[assignment]


class TrainSpec(JobSpec):
    """A job's spec, and the engine that it is for."""

    base_model: TrainBase
    dataset: TrainDataset
    lora: TrainLora = TrainLora()
    output: TrainOutput = TrainOutput()
    engine: Engine | None = None


UNPUBLISHED: Final = HubOutput.model_construct(repo="")


def published_to(spec: TrainSpec) -> HubOutput:
    """Return where the adapter is published; a place without a name where the spec has none."""
    return spec.output.hub or UNPUBLISHED


def beside(spec: TrainSpec, folder: Path) -> TrainSpec:
    """Return the spec with its paths as seen from this folder, the one that the spec lies in."""
    base, source, start = spec.base_model, spec.dataset.source, spec.lora.init_from
    changes = {
        "base_model": base.model_copy(update={"path": _beside(base.path, folder)}),
        "dataset": spec.dataset.model_copy(
            update={"source": source.model_copy(update={"path": _beside(source.path, folder)})}
        ),
    }
    if start is not None:
        found = start.model_copy(update={"path": _beside(start.path, folder)})
        changes["lora"] = spec.lora.model_copy(update={"init_from": found})
    return spec.model_copy(update=changes)


def _beside(path: str | None, folder: Path) -> str | None:
    return None if path is None else str(folder / Path(path).expanduser())
