"""What the LoRATrainingJob pass decides from: the object, its engine, its Job and pods, what the trainer said. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from lora_operator.api.lora_engine import LoRAEngine
from lora_operator.api.lora_training_job import JobStatus, LoRATrainingJob, Resolved
from lora_operator.lora_training_job.attempts import Attempt
from lora_operator.lora_training_job.manifests import JOB_KEY, RESOLVED_KEY
from lora_operator.protocol.door import Base
from lora_operator.protocol.training import TrainerStatus

Object = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Observed:
    """Everything that the pass decides from."""

    obj: Object
    job: LoRATrainingJob
    engine: LoRAEngine | None
    base: Base | None
    """The engine's base, where an agent has told of it and it is the one to train."""
    allowed: bool
    run: Object | None
    """The Job of Kubernetes that trains."""
    attempts: tuple[Attempt, ...]
    """Its pods, the oldest first."""
    reported: TrainerStatus | None
    """What the trainer said last."""
    suspended: bool
    now: datetime

    @property
    def status(self) -> JobStatus:
        """Return the status as it stands."""
        return self.job.status or JobStatus()


@dataclass(frozen=True)
class Frozen:
    """What was frozen when the training was found to be in order."""

    job: str
    """The Job as it is first made, in JSON."""
    resolved: Resolved

    @classmethod
    def read(cls, config_map: Object) -> Frozen:
        """Read it from its ConfigMap."""
        data = config_map["data"]
        return cls(data[JOB_KEY], Resolved.model_validate_json(data[RESOLVED_KEY]))
