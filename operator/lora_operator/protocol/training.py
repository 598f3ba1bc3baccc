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
"""A writable emptyDir: HOME, caches, the adapter before it is published."""
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
    """Exit codes of `lora-train`, after sysexits.h where it has one. Below 75 a retry changes nothing."""

    OK = 0
    FAILED = 1
    """Anything that has no code of its own: the trainer's log has the traceback."""
    CONFIG_INVALID = 64
    DATASET_INVALID = 65
    MODEL_UNAVAILABLE = 66
    """The base model (or its revision) is not there, or the token may not read it."""
    NOT_SERVABLE = 70
    HUB_UNAVAILABLE = 75
    """EX_TEMPFAIL: the Hub answers 5xx or not at all; try again."""
    HUB_UNAUTHORIZED = 77
    OUT_OF_MEMORY = 78
    """The accelerator's memory. The kernel's OOM killer shows as 137."""
    PREEMPTED = 79
    """SIGTERM before the end; nothing was published."""


class Reason(StrEnum):
    """Why a training attempt ended. The same words are condition reasons and Event reasons."""

    PUBLISHED = "Published"
    TRAINED = "Trained"
    """By hand, with --no-publish: the adapter is in the output folder."""
    CONFIG_INVALID = "ConfigInvalid"
    DATASET_INVALID = "DatasetInvalid"
    BASE_MODEL_UNAVAILABLE = "BaseModelUnavailable"
    NOT_SERVABLE = "NotServable"
    HUB_UNAVAILABLE = "HubUnavailable"
    HUB_UNAUTHORIZED = "HubUnauthorized"
    OUT_OF_MEMORY = "OutOfMemory"
    PREEMPTED = "Preempted"
    TRAINING_FAILED = "TrainingFailed"
    """Exit code 1: none of the above."""


class Artifact(Wire):
    """What was published: the adapter at one commit of one Hub repository."""

    repo: str
    commit: str
    digest: str
    size_bytes: int
    servable: bool = True


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
