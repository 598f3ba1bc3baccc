"""What operator and trainer say to each other: the frozen spec's surroundings, exit codes, the result, and progress.

The operator freezes the job's spec in a ConfigMap and mounts it; the trainer leaves its result as the container's
termination message and, for the time the pod is gone, as the last lines of the publish commit's message.
"""

from __future__ import annotations

from enum import IntEnum, StrEnum
from typing import Final, Literal

from pydantic import Field, ValidationError

from lora_operator.protocol.manifest import Wire

SPEC_PATH: Final = "/etc/lora-train/spec.json"
DATA_PATH: Final = "/etc/lora-train/data"
"""Where the data set's ConfigMap is mounted; its key is the file's name."""
CLAIM_PATH: Final = "/mnt/dataset"
"""Where the claim of dataset.source.pvc is mounted, read only."""
WORK_PATH: Final = "/work"
"""A writable emptyDir: HOME, caches, and without a checkpoint volume the adapter before it is published."""
STATE_PATH: Final = "/state"
"""Where the checkpoint volume is mounted: checkpoints, and the adapter before it is published, by the job's uid."""
TERMINATION_MESSAGE_PATH: Final = "/dev/termination-log"
TERMINATION_MESSAGE_LIMIT: Final = 4096
PROGRESS_TOKEN_PATH: Final = "/var/run/secrets/lora-operator.io/progress/token"  # noqa: S105 - a path, no secret
PROGRESS_CA_PATH: Final = "/etc/lora-train/progress/ca.crt"
PROGRESS_AUDIENCE: Final = "lora-operator.io/progress"
PROGRESS_ROUTE: Final = "/v1/progress/{namespace}/{name}/{uid}"
"""Where one training job's trainer reports to, under the operator's URL."""
COMMIT_TRAILER: Final = "Lora-Training-Job-Uid"
"""A trailer of the publish commit's message: makes publishing idempotent and lets the operator read a result back."""
RESULT_FILE: Final = "training_result.json"
"""In the published commit: the Result again, for the time that the pod is gone."""

ENV_JOB_UID: Final = "LORA_TRAINING_JOB_UID"
ENV_BASE_TOKEN: Final = "LORA_BASE_TOKEN"  # noqa: S105 - a variable's name
ENV_DATASET_TOKEN: Final = "LORA_DATASET_TOKEN"  # noqa: S105 - a variable's name
ENV_ADAPTER_TOKEN: Final = "LORA_ADAPTER_TOKEN"  # noqa: S105 - a variable's name
ENV_OUTPUT_TOKEN: Final = "LORA_OUTPUT_TOKEN"  # noqa: S105 - a variable's name


class ExitCode(IntEnum):
    """Exit codes of `lora-train`, after sysexits.h where it has one. After 69, 70 and 75 a retry may help."""

    OK = 0
    CONFIG_INVALID = 64
    NOT_SERVABLE = 64
    """The engine would refuse what the spec asks for, or what came of it."""
    DATASET_INVALID = 65
    HUB_UNAVAILABLE = 69
    """EX_UNAVAILABLE: the Hub answers 5xx or not at all; everything is kept, try again."""
    FAILED = 70
    """EX_SOFTWARE: anything that has no code of its own; the trainer's log has the traceback."""
    PREEMPTED = 75
    """EX_TEMPFAIL: SIGTERM, and a complete checkpoint from which the next attempt goes on. Only that."""
    GATE_FAILED = 76
    """Trained, and not good enough to publish. A code of its own because a Job's failure policy sees nothing else."""
    HUB_UNAUTHORIZED = 77
    MODEL_UNAVAILABLE = 77
    """The Hub refuses: no such repository or revision, gated, or the token may not read or write it."""
    OUT_OF_MEMORY = 78
    """The accelerator's memory, caught by the program. The kernel's OOM killer shows as 137."""


class Reason(StrEnum):
    """Why a training attempt ended. The same words are condition reasons and Event reasons."""

    PUBLISHED = "Published"
    TRAINED = "Trained"
    """By hand, with --no-publish: the adapter is in the output folder."""
    CHECKED = "Checked"
    """By hand, with --check: nothing was trained, and nothing was found to be wrong."""
    CONFIG_INVALID = "ConfigInvalid"
    DATASET_INVALID = "DatasetInvalid"
    BASE_MODEL_UNAVAILABLE = "BaseModelUnavailable"
    NOT_SERVABLE = "NotServable"
    HUB_UNAVAILABLE = "HubUnavailable"
    HUB_UNAUTHORIZED = "HubUnauthorized"
    OUT_OF_MEMORY = "OutOfMemory"
    PREEMPTED = "Preempted"
    """SIGTERM before the end; exit code 75 where a complete checkpoint is kept, else 70."""
    GATE_FAILED = "GateFailed"
    TRAINING_FAILED = "TrainingFailed"
    """Exit code 70: none of the above."""


class Artifact(Wire):
    """What was published: the adapter at one commit of one Hub repository."""

    repo: str
    commit: str
    digest: str
    size_bytes: int
    servable: bool = True
    tag: str | None = None


class GateVerdict(Wire):
    """What the evaluation gate said, in decimals as strings."""

    passed: bool
    metric: str
    value: str
    limit: str
    """The worst value that would have passed."""
    against: str
    """What the limit comes from: a threshold, the base model, or the adapter published before."""


class Result(Wire):
    """What the trainer leaves as termination message. `message` names the field and what to change where it failed."""

    version: Literal[1] = 1
    reason: Reason
    message: str = Field(default="", max_length=1024)
    artifact: Artifact | None = None
    base_revision: str = ""
    dataset_revision: str = ""
    steps: int = 0
    metrics: dict[str, str] = Field(default_factory=dict)
    resumed_from_step: int | None = None
    """The step of the checkpoint that this attempt went on from; None where it began anew."""
    checkpoint_step: int | None = None
    """The step of the newest complete checkpoint, where an attempt that did not end well leaves one."""
    world_size: int | None = None
    """How many processes trained, where there was more than one."""
    gate: GateVerdict | None = None


class Metric(Wire):
    """One metric as transformers' KubeflowCallback sends it: the value is a decimal as a string."""

    name: str
    value: str


class TrainerStatus(Wire):
    """Progress, as Kubeflow Trainer's TrainJob status has it."""

    progress_percentage: int | None = Field(default=None, ge=0, le=100)
    estimated_remaining_seconds: int | None = Field(default=None, ge=0)
    metrics: tuple[Metric, ...] = ()
    last_updated_time: str = ""


class Progress(Wire):
    """The body of a progress POST: `{"trainerStatus": {...}}` to KUBEFLOW_TRAINER_SERVER_URL."""

    trainer_status: TrainerStatus


def progress_url(base: str, namespace: str, name: str, uid: str) -> str:
    """Return the URL that the trainer of one training job reports to."""
    return base.rstrip("/") + PROGRESS_ROUTE.format(namespace=namespace, name=name, uid=uid)


def read_result(text: str) -> Result | None:
    """Parse a termination message; None where the container died without leaving one."""
    try:
        return Result.model_validate_json(text)
    except ValidationError:
        return None
