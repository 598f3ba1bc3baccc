"""What a LoRATrainingJob trains: base model, data set, the adapter's shape, the training, and where the result goes.

peft's and trl's own names in camelCase, decimals as strings: what is here reaches the trainer as it is written.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

from pydantic import ConfigDict, Field

from lora_operator.api.meta import KeyRef, Tenant
from lora_operator.api.schema import (
    INT_OR_STRING,
    Decimal,
    HubRepo,
    Model,
    Revision,
    ServedName,
    ShortName,
    map_list,
    rules,
    set_list,
)


class Dtype(StrEnum):
    """The type that the base model's weights are loaded in."""

    AUTO = "Auto"
    BFLOAT16 = "BFloat16"
    FLOAT32 = "Float32"


class BaseModelSource(Model):
    """The base model, in a repository of the Hugging Face Hub."""

    name: HubRepo
    """name of the repository on the Hub, such as `meta-llama/Llama-3.1-8B-Instruct`."""
    revision: Revision = "main"
    """revision is a branch, tag or commit; the commit that was used is in `status.resolved`."""
    token_secret_ref: KeyRef | None = None
    """tokenSecretRef is the Secret's key with a Hub token that may read the base model."""
    dtype: Dtype = Dtype.AUTO
    """dtype that the base model is loaded in: Auto is BFloat16 on an accelerator and Float32 on a CPU."""


class HubDataset(Model):
    """A data set in a repository of the Hugging Face Hub."""

    repo: HubRepo
    """repo of the data set on the Hub."""
    revision: Revision = "main"
    """revision is a branch, tag or commit; the commit that was used is in `status.resolved`."""
    config: Annotated[str, Field(min_length=1, max_length=253)] | None = None
    """config is the name of one of the data set's configurations."""
    token_secret_ref: KeyRef | None = None
    """tokenSecretRef is the Secret's key with a Hub token that may read the data set."""


class DatasetSource(Model):
    """Where the data set comes from: exactly one of the fields."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            (
                "[has(self.hub), has(self.configMapRef)].filter(given, given).size() == 1",
                "exactly one of hub and configMapRef must be given",
            )
        )
    )

    hub: HubDataset | None = None
    """hub is a repository of the Hugging Face Hub."""
    config_map_ref: KeyRef | None = None
    """configMapRef is a ConfigMap's key that holds the data set; the key ends in .jsonl, .json or .csv."""


class DatasetFormat(StrEnum):
    """What one row of the data set looks like."""

    MESSAGES = "Messages"
    PROMPT_COMPLETION = "PromptCompletion"
    TEXT = "Text"


class Dataset(Model):
    """The data set."""

    source: DatasetSource
    """source of the data set."""
    format: DatasetFormat
    """format of a row: Messages (`messages`, a chat), PromptCompletion (`prompt` and `completion`) or Text (`text`)."""
    split: Annotated[str, Field(min_length=1, max_length=253)] = "train"
    """split of the data set to train on."""


class Method(StrEnum):
    """How the adapter is trained."""

    SFT = "SFT"


class Bias(StrEnum):
    """Which biases are trained. vLLM serves adapters without biases only."""

    NONE = "None"


class InitLoraWeights(StrEnum):
    """How the adapter's weights start."""

    DEFAULT = "Default"
    GAUSSIAN = "Gaussian"


TargetModule = Annotated[str, Field(min_length=1, max_length=253, pattern=r"^[A-Za-z0-9_.-]+$")]


class Lora(Model):
    """The adapter's shape, by peft's names."""

    r: Annotated[int, Field(ge=1, le=512)] = 16
    """r is the rank; the engine's `--max-lora-rank` must not be below it."""
    lora_alpha: Annotated[int, Field(ge=1, le=65536)] = 32
    """loraAlpha scales the adapter, by loraAlpha / r."""
    lora_dropout: Decimal = "0"
    """loraDropout is the probability of dropout in the adapter, a decimal as a string."""
    target_modules: Annotated[
        tuple[TargetModule, ...],
        Field(
            min_length=1,
            max_length=64,
            json_schema_extra=set_list()
            | rules(
                (
                    "!('all-linear' in self) || self.size() == 1",
                    "all-linear stands alone: name modules, or give only all-linear",
                )
            ),
        ),
    ] = ("all-linear",)
    """targetModules are the modules that the adapter changes, by the end of their names; or all-linear alone."""
    bias: Bias = Bias.NONE
    """bias says which biases are trained."""
    use_rslora: bool = False
    """useRslora scales the adapter by loraAlpha / sqrt(r) instead."""
    init_lora_weights: InitLoraWeights = InitLoraWeights.DEFAULT
    """initLoraWeights says how the adapter's weights start."""


class LrSchedulerType(StrEnum):
    """How the learning rate changes over the training."""

    LINEAR = "Linear"
    COSINE = "Cosine"
    CONSTANT = "Constant"
    CONSTANT_WITH_WARMUP = "ConstantWithWarmup"


ExtraArg = Annotated[int | str, Field(json_schema_extra={INT_OR_STRING: True, "maxLength": 1024})]


class Training(Model):
    """The training, by trl's names."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            ("!(has(self.numTrainEpochs) && has(self.maxSteps))", "give numTrainEpochs or maxSteps, not both"),
        )
    )

    num_train_epochs: Annotated[int, Field(ge=1, le=1000)] | None = None
    """numTrainEpochs is how often the data set is gone through; absent, without maxSteps: 3 times."""
    max_steps: Annotated[int, Field(ge=1, le=100_000_000)] | None = None
    """maxSteps is the number of optimiser steps, instead of numTrainEpochs."""
    per_device_train_batch_size: Annotated[int, Field(ge=1, le=4096)] = 8
    """perDeviceTrainBatchSize is the number of rows in one forward pass of one device."""
    gradient_accumulation_steps: Annotated[int, Field(ge=1, le=4096)] = 1
    """gradientAccumulationSteps is the number of forward passes per optimiser step."""
    learning_rate: Decimal = "2e-4"
    """learningRate at its highest, a decimal as a string."""
    lr_scheduler_type: LrSchedulerType = LrSchedulerType.LINEAR
    """lrSchedulerType says how the learning rate changes over the training."""
    warmup_steps: Annotated[int, Field(ge=0, le=1_000_000)] = 0
    """warmupSteps is the number of optimiser steps until the learning rate is at its highest."""
    weight_decay: Decimal = "0"
    """weightDecay of the optimiser, a decimal as a string."""
    max_length: Annotated[int, Field(ge=1, le=10_000_000)] = 1024
    """maxLength is the number of tokens at which a row is cut."""
    packing: bool = False
    """packing puts several rows in one sequence."""
    gradient_checkpointing: bool = True
    """gradientCheckpointing saves memory by computing activations twice."""
    seed: Annotated[int, Field(ge=0, le=4_294_967_295)] = 42
    """seed of the random numbers."""
    logging_steps: Annotated[int, Field(ge=1, le=1_000_000)] = 10
    """loggingSteps is the number of optimiser steps between two readings of the loss."""
    extra_args: Annotated[
        dict[str, ExtraArg],
        Field(
            max_length=64,
            json_schema_extra=rules(
                ("self.all(name, name.size() <= 64)", "a key of extraArgs has at most 64 characters")
            ),
        ),
    ] = Field(default_factory=dict)
    """extraArgs are further arguments of trl's SFTConfig under their own names, such as `max_grad_norm: "0.5"`.
    A string is read as a YAML scalar."""


class DeletionPolicy(StrEnum):
    """What becomes of the published repository when the object is deleted."""

    RETAIN = "Retain"


class HubOutput(Model):
    """The repository of the Hugging Face Hub that the adapter is published to."""

    repo: HubRepo
    """repo on the Hub; it is created where it does not exist."""
    private: bool = True
    """private says whether a repository that is created is private."""
    token_secret_ref: KeyRef | None = None
    """tokenSecretRef is the Secret's key with a Hub token that may write to the repo."""
    deletion_policy: DeletionPolicy = DeletionPolicy.RETAIN
    """deletionPolicy Retain leaves the repository alone when this object is deleted."""


class AdapterOutput(Model):
    """The LoRAAdapter that serves the result."""

    name: ShortName | None = None
    """name of the LoRAAdapter, in this namespace; absent: the name of this object."""
    served_name: ServedName | None = None
    """servedName of the LoRAAdapter; absent: its name."""
    tenants: (
        Annotated[tuple[Tenant, ...], Field(min_length=1, max_length=256, json_schema_extra=map_list("namespace"))]
        | None
    ) = None
    """tenants of the LoRAAdapter; absent: this namespace."""


class Output(Model):
    """What becomes of the trained adapter."""

    hub: HubOutput
    """hub is the repository that the adapter is published to."""
    adapter: AdapterOutput | None = None
    """adapter asks for a LoRAAdapter on the job's engine; absent: the adapter is published and not served."""
