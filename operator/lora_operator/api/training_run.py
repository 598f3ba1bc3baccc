"""How a training runs and what its result must be worth: checkpoints, evaluation with its gate, parallelism."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

from pydantic import ConfigDict, Field

from lora_operator.api.schema import Decimal, Model, Name, Quantity, rules

SignedDecimal = Annotated[
    str, Field(min_length=1, max_length=32, pattern=r"^-?[0-9]+([.][0-9]+)?([eE][-+]?[0-9]{1,3})?$")
]
MetricName = Annotated[str, Field(min_length=1, max_length=64, pattern=r"^eval_[a-z0-9_/]+$")]


class EmptyDir(Model):
    """A volume that lives as long as the trainer's pod."""

    size_limit: Quantity | None = None
    """sizeLimit of the volume; a pod that writes more is evicted."""


class CheckpointVolume(Model):
    """Where checkpoints are kept: at most one of the fields; none is an emptyDir."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            ("!(has(self.claimName) && has(self.emptyDir))", "give claimName or emptyDir, not both"),
        )
    )

    claim_name: Name | None = None
    """claimName is a PersistentVolumeClaim, which another pod of this job finds again; jobs may share one."""
    empty_dir: EmptyDir | None = None
    """emptyDir is lost with the pod: an interrupted training starts anew."""


class Retention(StrEnum):
    """What becomes of checkpoints once the adapter is published."""

    DELETE = "Delete"
    RETAIN = "Retain"


class Checkpoint(Model):
    """Checkpoints: by time, at SIGTERM, and after the last step."""

    volume: CheckpointVolume = CheckpointVolume()
    """volume that checkpoints are kept on; by hand they lie in the output folder."""
    interval_seconds: Annotated[int, Field(ge=1, le=604_800)] = 600
    """intervalSeconds is the time between two checkpoints; one is also saved at SIGTERM and after the last step."""
    keep: Annotated[int, Field(ge=1, le=100)] = 2
    """keep is the number of complete checkpoints that are kept, the newest; the best one is kept beside them."""
    grace_period_seconds: Annotated[int, Field(ge=45, le=3600)] = 120
    """gracePeriodSeconds is the time from SIGTERM to SIGKILL: one step, and one checkpoint to write."""
    retention: Retention = Retention.DELETE
    """retention says what becomes of the checkpoints once the adapter is published."""


class EvaluationSchedule(StrEnum):
    """When the held-out rows are evaluated."""

    END = "End"
    EPOCH = "Epoch"


class Keep(StrEnum):
    """Which weights become the adapter."""

    LAST = "Last"
    BEST = "Best"


class Better(StrEnum):
    """Which way a metric gets better."""

    LOWER = "Lower"
    HIGHER = "Higher"


class Against(StrEnum):
    """What else the adapter is measured by."""

    BASE = "Base"
    CURRENT = "Current"


class Gate(Model):
    """What the adapter must reach to be published."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            ("has(self.threshold) || has(self.against)", "a gate needs threshold, against, or both"),
        )
    )

    threshold: SignedDecimal | None = None
    """threshold that evaluation.metric must not be worse than, a decimal as a string."""
    against: Against | None = None
    """against measures the same rows with Base, the model without the adapter, or with Current, the adapter that
    output.hub.repo holds; where it holds none, Current passes."""
    margin: SignedDecimal = "0"
    """margin by which the metric must be better than that of `against`; negative: by which it may be worse."""


class Evaluation(Model):
    """Rows that are not trained on, and what the adapter makes of them."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            ("has(self.split) != has(self.fraction)", "exactly one of split and fraction must be given"),
            (
                "!has(self.keep) || self.keep != 'Best' || (has(self.schedule) && self.schedule == 'Epoch')",
                "keep: Best needs schedule: Epoch",
            ),
        )
    )

    split: Annotated[str, Field(min_length=1, max_length=253)] | None = None
    """split of the data set to evaluate on."""
    fraction: Decimal | None = None
    """fraction of the rows that is held back for evaluation, a decimal as a string, such as `0.1`."""
    schedule: EvaluationSchedule = EvaluationSchedule.END
    """schedule says when: at the End, or after each Epoch too."""
    keep: Keep = Keep.LAST
    """keep Best makes the adapter of the epoch with the best metric instead of the last."""
    metric: MetricName = "eval_loss"
    """metric that decides, as trl names it: eval_loss, eval_mean_token_accuracy."""
    better: Better = Better.LOWER
    """better says which way the metric gets better."""
    gate: Gate | None = None
    """gate between training and publishing; absent: every adapter is published."""


class Parallelism(Model):
    """Over how many processes the batch is spread (DDP)."""

    nodes: Annotated[int, Field(ge=1, le=1024)] = 1
    """nodes that take part; more than 1 needs a launcher that sets torchrun's environment (PET_* or MASTER_ADDR)."""
    proc_per_node: Annotated[int, Field(ge=1, le=64)] = 1
    """procPerNode is the number of processes on each node, one an accelerator."""
