"""How the apiserver presents each kind: short name, the columns of `kubectl get`, and the fields to select by."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from lora_operator.api import LoRAAdapter, LoRAEngine, LoRATrainingJob, Object


@dataclass(frozen=True, slots=True)
class Column:
    """A column of `kubectl get`. The wide ones show with `-o wide` only."""

    name: str
    path: str
    description: str
    type: str = "string"
    wide: bool = False

    def to_crd(self) -> dict[str, Any]:
        """Return the column as a CRD writes it."""
        column = {"name": self.name, "type": self.type, "jsonPath": self.path, "description": self.description}
        return column | {"priority": 1} if self.wide else column


@dataclass(frozen=True, kw_only=True, slots=True)
class Presentation:
    """How one kind is presented."""

    short_name: str
    columns: tuple[Column, ...]
    selectable: tuple[str, ...]


READY: Final = (
    Column("Ready", '.status.conditions[?(@.type=="Ready")].status', "Whether all that was asked for holds."),
    Column("Reason", '.status.conditions[?(@.type=="Ready")].reason', "Why, or why not."),
)
AGE: Final = Column("Age", ".metadata.creationTimestamp", "Time since the object was created.", "date")

PRESENTATIONS: Final[dict[type[Object], Presentation]] = {
    LoRAEngine: Presentation(
        short_name="leng",
        columns=(
            *READY,
            Column("Base", ".status.baseModel", "The base model."),
            Column("Pods", ".status.pods.ready", "Pods of the engine that are Ready.", "integer"),
            Column("Adapters", ".status.adapters.loaded", "Adapters that answer on all of them.", "integer"),
            Column("Target", ".spec.targetRef.name", "The Deployment.", wide=True),
            Column("Wanted", ".status.adapters.desired", "Adapters that should answer.", "integer", wide=True),
            Column("Total", ".status.pods.total", "Pods of the engine, Ready or not.", "integer", wide=True),
            Column("Version", ".status.engine.version", "The engine's version.", wide=True),
            Column("Agent", ".status.agentImage", "The agent's image.", wide=True),
            AGE,
        ),
        selectable=(".spec.targetRef.name",),
    ),
    LoRAAdapter: Presentation(
        short_name="lad",
        columns=(
            *READY,
            Column("Model", ".status.current.engineName", "The name that clients put in `model`."),
            Column("Engine", ".spec.engineRef.name", "The LoRAEngine."),
            Column("Loaded", ".status.replicas.loaded", "Pods on which the adapter answers.", "integer"),
            Column("Pods", ".status.replicas.desired", "Pods on which it should.", "integer"),
            Column("Base", ".spec.baseModel", "The base model.", wide=True),
            Column("Rank", ".status.current.rank", "The adapter's rank.", "integer", wide=True),
            Column("Revision", ".status.current.revision", "The commit that is served.", wide=True),
            AGE,
        ),
        selectable=(
            ".spec.engineRef.name",
            ".spec.engineRef.namespace",
            ".spec.baseModel",
            ".spec.source.trainingJobRef.name",
        ),
    ),
    LoRATrainingJob: Presentation(
        short_name="ltj",
        columns=(
            *READY,
            Column("Percent", ".status.trainerStatus.progressPercentage", "Per cent of the training.", "integer"),
            Column("Step", ".status.trainerStatus.currentStep", "Optimiser steps done.", "integer"),
            Column("Loss", '.status.trainerStatus.metrics[?(@.name=="loss")].value', "The loss as last read."),
            Column("Base", ".spec.baseModel.name", "The base model.", wide=True),
            Column("Repo", ".spec.output.hub.repo", "Where the adapter is published.", wide=True),
            Column("Commit", ".status.artifact.commit", "The commit that was published.", wide=True),
            AGE,
        ),
        selectable=(".spec.baseModel.name", ".spec.engineRef.name", ".spec.output.hub.repo"),
    ),
}
