"""What a LoRATrainingJob trains: base model, method, the training itself, and where the result goes.

The data set is in `dataset.py`, the adapter's shape in `lora.py`. peft's and trl's own names in camelCase, decimals as
strings: what is here reaches the trainer as it is written.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

from pydantic import ConfigDict, Field

from lora_operator.api.dtype import Dtype
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
)


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


class Method(StrEnum):
    """How the adapter is trained."""

    SFT = "SFT"
    DPO = "DPO"


class LrSchedulerType(StrEnum):
    """How the learning rate changes over the training."""

    LINEAR = "Linear"
    COSINE = "Cosine"
    CONSTANT = "Constant"
    CONSTANT_WITH_WARMUP = "ConstantWithWarmup"


class Optim(StrEnum):
    """The optimiser, by transformers' names in CamelCase. Those with 8 bits and paged ones are bitsandbytes'."""

    ADAMW_TORCH_FUSED = "AdamwTorchFused"
    ADAMW_TORCH = "AdamwTorch"
    ADAMW_8BIT = "Adamw8bit"
    PAGED_ADAMW_32BIT = "PagedAdamw32bit"
    PAGED_ADAMW_8BIT = "PagedAdamw8bit"
    ADAFACTOR = "Adafactor"
    SGD = "Sgd"


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
    max_grad_norm: Decimal = "1"
    """maxGradNorm is the norm that gradients are clipped to, a decimal as a string; 0 clips none."""
    optim: Optim = Optim.ADAMW_TORCH_FUSED
    """optim is the optimiser. Paged ones need an accelerator; on a CPU the trainer takes AdamwTorch, and says so."""
    max_length: Annotated[int, Field(ge=1, le=10_000_000)] = 1024
    """maxLength is the number of tokens at which a row is cut."""
    packing: bool = False
    """packing puts several rows in one sequence."""
    assistant_only_loss: bool = False
    """assistantOnlyLoss learns from the assistant's messages alone; it needs a chat template that marks them."""
    completion_only_loss: bool | None = None
    """completionOnlyLoss learns from the completion alone; absent: yes where the data set has prompts, for SFT."""
    beta: Decimal | None = None
    """beta of DPO: how far the adapter may go from where it started, a decimal as a string; absent: 0.1."""
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
    """extraArgs are further arguments of trl's SFTConfig or DPOConfig under their own names, such as
    `neftune_noise_alpha: 5`. A string is read as a YAML scalar."""


class DeletionPolicy(StrEnum):
    """What becomes of the published repository when the object is deleted."""

    RETAIN = "Retain"


Tag = Annotated[str, Field(min_length=1, max_length=128, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]


class HubOutput(Model):
    """The repository of the Hugging Face Hub that the adapter is published to."""

    repo: HubRepo
    """repo on the Hub; it is created where it does not exist."""
    private: bool = True
    """private says whether a repository that is created is private."""
    token_secret_ref: KeyRef | None = None
    """tokenSecretRef is the Secret's key with a Hub token that may write to the repo."""
    tag: Tag | None = None
    """tag of the published commit; absent: `lora-` and the first 12 digits of the adapter's digest."""
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
