"""LoRATrainingJob: train this adapter, on this base, from this data, and publish it.

The spec is one run, frozen for the trainer when the job starts; what is trained is in `training.py`.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any, Final

from pydantic import ConfigDict, Field

from lora_operator.api.dataset import Dataset
from lora_operator.api.lora import CONVERTED_WORDS, Lora, Quantization
from lora_operator.api.meta import (
    Condition,
    EngineRef,
    LocalRef,
    NodeSelector,
    Object,
    Resources,
    Tolerations,
)
from lora_operator.api.schema import (
    Count,
    Model,
    Name,
    Timestamp,
    Word,
    map_list,
    rules,
    set_list,
)
from lora_operator.api.training import BaseModelSource, Method, Output, Training
from lora_operator.api.training_run import Checkpoint, Evaluation, Parallelism
from lora_operator.labels import Key


class JobCondition(StrEnum):
    """The conditions of a LoRATrainingJob. The last three are there only while they are true."""

    READY = "Ready"
    VALIDATED = "Validated"
    TRAINED = "Trained"
    PUBLISHED = "Published"
    COMPLETE = "Complete"
    FAILED = "Failed"
    SUSPENDED = "Suspended"
    RECONCILING = "Reconciling"
    STALLED = "Stalled"


PREEMPTED_PODS: Final = 256
MUTABLE: Final = ("suspend", "activeDeadlineSeconds", "ttlSecondsAfterFinished")
"""What may still change once a job exists: when it runs, how long, and how long it is kept."""


_IS_CONVERTED: Final = f"self.lora.initLoraWeights in {CONVERTED_WORDS}"
_NOT_OF_DPO: Final = "self.training.packing || self.training.assistantOnlyLoss || has(self.training.completionOnlyLoss)"
_METHODS: Final = (
    (
        "(self.method == 'DPO') == (self.dataset.format == 'Preference')",
        "dataset.format: Preference and method: DPO belong together",
    ),
    ("self.method == 'DPO' || !has(self.training.beta)", "training.beta belongs to method: DPO"),
    (
        f"self.method == 'SFT' || !({_NOT_OF_DPO})",
        "training: packing, assistantOnlyLoss and completionOnlyLoss belong to method: SFT",
    ),
    (
        f"self.method == 'SFT' || !({_IS_CONVERTED})",
        "lora.initLoraWeights: Pissa and Olora change the base, which is what method: DPO compares with",
    ),
    (
        f"!has(self.quantization) || !({_IS_CONVERTED})",
        "lora.initLoraWeights: Pissa and Olora need a base that is not quantised",
    ),
)


def _one_run(schema: dict[str, Any]) -> None:
    """Let the apiserver keep every field of the spec as it was created, but those in MUTABLE."""
    fixed = (
        (
            f"has(self.{field}) == has(oldSelf.{field}) && (!has(self.{field}) || self.{field} == oldSelf.{field})",
            f"{field} is immutable: a job is one run, create another",
        )
        for field in schema["properties"]
        if field not in MUTABLE
    )
    served = (
        "!has(self.output.adapter) || has(self.engineRef)",
        "output.adapter needs engineRef: the LoRAEngine that is to serve the adapter",
    )
    alone = (
        "!has(self.parallelism) || !has(self.parallelism.nodes) || self.parallelism.nodes == 1",
        "parallelism.nodes above 1 is for lora-train under a launcher of its own: a LoRATrainingJob trains on one node",
    )
    schema |= rules(served, alone, *_METHODS, *fixed)


class JobSpec(Model):
    """What the tenant says. It is one run: only its timing may change later."""

    model_config = ConfigDict(json_schema_extra=_one_run)

    base_model: BaseModelSource
    """baseModel is the model that the adapter is trained on."""
    dataset: Dataset
    """dataset that the adapter is trained on."""
    method: Method = Method.SFT
    """method SFT is supervised fine-tuning; DPO learns what is preferred, from a data set of format Preference."""
    lora: Lora = Lora()
    """lora is the adapter's shape."""
    quantization: Quantization | None = None
    """quantization keeps the base in 4 bits while the adapter is trained (QLoRA); absent: the base is as it is."""
    training: Training = Training()
    """training is how the adapter is trained."""
    checkpoint: Checkpoint | None = None
    """checkpoint lets an interrupted training go on; absent: it starts anew."""
    evaluation: Evaluation | None = None
    """evaluation of the adapter on rows that it was not trained on."""
    parallelism: Parallelism | None = None
    """parallelism over several processes; absent: one process, or as many as torchrun started."""
    engine_ref: EngineRef | None = None
    """engineRef is the LoRAEngine that must be able to serve the result."""
    output: Output
    """output is where the adapter goes."""
    resources: Resources | None = None
    """resources of the trainer's container; absent: those that the operator was installed with."""
    node_selector: NodeSelector | None = None
    """nodeSelector picks the trainer's node by labels."""
    tolerations: Tolerations | None = None
    """tolerations of the trainer's pod."""
    service_account_name: Name | None = None
    """serviceAccountName of the trainer's pod; absent: the namespace's default, without a token."""
    priority_class_name: Name | None = None
    """priorityClassName of the trainer's pod."""
    suspend: bool = False
    """suspend keeps the job from running, or stops it; it starts anew when this is false again."""
    active_deadline_seconds: Annotated[int, Field(ge=1, le=31_536_000)] | None = None
    """activeDeadlineSeconds is how long the job may run, all its attempts together."""
    ttl_seconds_after_finished: Annotated[int, Field(ge=0, le=31_536_000)] | None = None
    """ttlSecondsAfterFinished is how long the object is kept after its end; absent: for ever."""
    backoff_limit: Annotated[int, Field(ge=0, le=100)] = 3
    """backoffLimit is how often a failed attempt is repeated, where a repetition can help."""
    max_preemptions: Annotated[int, Field(ge=0, le=PREEMPTED_PODS)] | None = None
    """maxPreemptions is how often the cluster may take the pod back (an eviction, a preemption), which is no failure
    and is followed by another attempt; absent: as often as it likes."""


class Metric(Model):
    """One reading of the trainer."""

    name: Annotated[str, Field(max_length=128)]
    """name of the metric, such as loss."""
    value: Annotated[str, Field(max_length=128)]
    """value of the metric, a decimal as a string."""


class TrainerStatus(Model):
    """How far the trainer is: Kubeflow Trainer's fields and more."""

    progress_percentage: Annotated[int, Field(ge=0, le=100)] | None = None
    """progressPercentage of the training."""
    estimated_remaining_seconds: Count | None = None
    """estimatedRemainingSeconds until the training ends."""
    current_step: Count | None = None
    """currentStep is the number of optimiser steps done."""
    max_steps: Count | None = None
    """maxSteps is the number of optimiser steps to do."""
    metrics: Annotated[tuple[Metric, ...], Field(max_length=32, json_schema_extra=map_list("name"))] = ()
    """metrics as last read."""
    last_updated_time: Timestamp | None = None
    """lastUpdatedTime is when the trainer said so."""


class Resolved(Model):
    """What the names in the spec stood for."""

    base_revision: Word | None = None
    """baseRevision is the base model's commit."""
    dataset_revision: Word | None = None
    """datasetRevision is the data set's commit or its file's digest; of a volume only the published result has it."""
    image: Annotated[str, Field(max_length=512)] | None = None
    """image of the trainer."""


class Artifact(Model):
    """What was published."""

    repo: Word
    """repo on the Hub."""
    commit: Word
    """commit in the repo."""
    digest: Word
    """digest over the adapter's files: `sha256:` and 64 hexadecimal digits."""
    size_bytes: Count
    """sizeBytes of the adapter's files."""
    servable: bool = True
    """servable says whether an engine can load the adapter as it is."""
    tag: Word | None = None
    """tag of the commit."""


class JobStatus(Model):
    """What the operator sees of the training."""

    observed_generation: Count | None = None
    """observedGeneration is the generation of the spec that this status speaks of."""
    conditions: Annotated[tuple[Condition, ...], Field(max_length=16, json_schema_extra=map_list("type"))] = ()
    """conditions of the job: Ready, Validated, Trained, Published, Complete, Failed, Suspended and others."""
    start_time: Timestamp | None = None
    """startTime is when the first attempt started."""
    completion_time: Timestamp | None = None
    """completionTime is when the job completed."""
    attempts: Count | None = None
    """attempts made so far."""
    preemptions: Count | None = None
    """preemptions so far: attempts that the cluster ended, and that count for no failure."""
    preempted_pods: Annotated[tuple[Name, ...], Field(max_length=PREEMPTED_PODS, json_schema_extra=set_list())] = ()
    """preemptedPods are the pods of preemptions, as far as they are still there: each is counted once."""
    resumes: Count | None = None
    """resumes are the attempts that went on from a checkpoint, as far as attempts tell."""
    checkpoint_step: Count | None = None
    """checkpointStep is the step of the newest complete checkpoint, as an attempt that was interrupted told it."""
    peak_memory_bytes: Annotated[int, Field(ge=0, le=1 << 53)] | None = None
    """peakMemoryBytes is the most memory that the trainer took, of the accelerator where it has one, else of its own
    process."""
    trainer_status: TrainerStatus | None = None
    """trainerStatus is how far the trainer is."""
    resolved: Resolved | None = None
    """resolved says what the names in the spec stood for."""
    artifact: Artifact | None = None
    """artifact is what was published."""
    adapter_ref: LocalRef | None = None
    """adapterRef is the LoRAAdapter that serves the artifact."""
    job_ref: LocalRef | None = None
    """jobRef is the Job of Kubernetes that trains."""


class LoRATrainingJob(Object):
    """LoRATrainingJob says: train this adapter, on this base, from this data, and publish it."""

    spec: JobSpec
    """spec says what is trained, and where the result goes; it is one run: only its timing may change later."""
    status: JobStatus | None = None
    """status is what the operator sees of the training."""

    @property
    def engine_key(self) -> Key | None:
        """Return the key of the LoRAEngine that must be able to serve the result."""
        ref = self.spec.engine_ref
        return None if ref is None else Key("LoRAEngine", ref.namespace or self.metadata.namespace, ref.name)
