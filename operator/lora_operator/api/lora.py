"""The shape of a LoRATrainingJob's adapter, where its weights start, and how the base lies under it."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Final

from pydantic import ConfigDict, Field

from lora_operator.api.dtype import Dtype
from lora_operator.api.meta import KeyRef
from lora_operator.api.schema import Decimal, HubRepo, Model, Revision, rules, set_list


class Bias(StrEnum):
    """Which biases are trained. vLLM serves adapters without biases only."""

    NONE = "None"


class InitLoraWeights(StrEnum):
    """How the adapter's weights start. Pissa and Olora change the base too, and are converted to a plain LoRA."""

    DEFAULT = "Default"
    GAUSSIAN = "Gaussian"
    ORTHOGONAL = "Orthogonal"
    PISSA = "Pissa"
    PISSA_NITER_16 = "PissaNiter16"
    OLORA = "Olora"


CONVERTED: Final = (InitLoraWeights.PISSA, InitLoraWeights.PISSA_NITER_16, InitLoraWeights.OLORA)
"""What is published has twice the rank: the difference between two adapters of rank r."""

CONVERTED_WORDS: Final = f"[{', '.join(repr(word.value) for word in CONVERTED)}]"
"""The same, as CEL writes a list."""

TargetModule = Annotated[str, Field(min_length=1, max_length=253, pattern=r"^[A-Za-z0-9_.-]+$")]
PATTERN_KEYS: Final = rules(
    ("self.all(name, name.matches('^[A-Za-z0-9_.-]{1,253}$'))", "a key is a module, by the end of its name")
)


class HubAdapter(Model):
    """An adapter in a repository of the Hugging Face Hub."""

    repo: HubRepo
    """repo of the adapter on the Hub."""
    revision: Revision = "main"
    """revision is a branch, tag or commit."""
    token_secret_ref: KeyRef | None = None
    """tokenSecretRef is the Secret's key with a Hub token that may read the adapter."""


class InitFrom(Model):
    """The adapter that the training goes on from."""

    model_config = ConfigDict(json_schema_extra=rules(("has(self.hub)", "hub must be given")))

    hub: HubAdapter | None = None
    """hub is a repository of the Hugging Face Hub."""


_NOT_CONVERTED: Final = f"!has(self.initLoraWeights) || !(self.initLoraWeights in {CONVERTED_WORDS})"


class Lora(Model):
    """The adapter's shape, by peft's names."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            (
                "!has(self.initFrom) || !has(self.initLoraWeights) || self.initLoraWeights == 'Default'",
                "initLoraWeights has no use with initFrom: its weights are the start",
            ),
            (
                _NOT_CONVERTED + " || !self.useRslora || !(has(self.rankPattern) || has(self.alphaPattern))",
                "initLoraWeights: Pissa and Olora can't be converted with useRslora and rankPattern or alphaPattern",
            ),
            (
                "!has(self.initLoraWeights) || self.initLoraWeights != 'Orthogonal' || self.r % 2 == 0",
                "initLoraWeights: Orthogonal needs an even r",
            ),
        )
    )

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
    exclude_modules: (
        Annotated[tuple[TargetModule, ...], Field(min_length=1, max_length=64, json_schema_extra=set_list())] | None
    ) = None
    """excludeModules are modules that it leaves alone, by the end of their names, though targetModules has them."""
    rank_pattern: (
        Annotated[
            dict[str, Annotated[int, Field(ge=1, le=512)]],
            Field(max_length=64, json_schema_extra=PATTERN_KEYS),
        ]
        | None
    ) = None
    """rankPattern gives modules a rank of their own, by the end of their names."""
    alpha_pattern: (
        Annotated[
            dict[str, Annotated[int, Field(ge=1, le=65536)]],
            Field(max_length=64, json_schema_extra=PATTERN_KEYS),
        ]
        | None
    ) = None
    """alphaPattern gives modules a loraAlpha of their own, by the end of their names."""
    bias: Bias = Bias.NONE
    """bias says which biases are trained."""
    use_rslora: bool = False
    """useRslora scales the adapter by loraAlpha / sqrt(r) instead."""
    init_lora_weights: InitLoraWeights = InitLoraWeights.DEFAULT
    """initLoraWeights says how the adapter's weights start. Pissa, PissaNiter16 and Olora start from the base's weights
    and are converted to a plain LoRA of twice the rank, which the engine's `--max-lora-rank` must take."""
    init_from: InitFrom | None = None
    """initFrom is an adapter to go on from: its weights and its shape; of this field's neighbours only loraDropout is
    read then."""


class QuantType(StrEnum):
    """The four bits that a weight is kept in."""

    NF4 = "NF4"
    FP4 = "FP4"


class Quantization(Model):
    """The base in 4 bits under the adapter while it is trained (QLoRA), by bitsandbytes' names."""

    bnb_4bit_quant_type: QuantType = Field(default=QuantType.NF4, alias="bnb4bitQuantType")
    """bnb4bitQuantType is how a weight is kept: NF4, or FP4."""
    bnb_4bit_use_double_quant: bool = Field(default=False, alias="bnb4bitUseDoubleQuant")
    """bnb4bitUseDoubleQuant quantises the scales as well: 0.37 bits less a weight."""
    bnb_4bit_compute_dtype: Dtype = Field(default=Dtype.AUTO, alias="bnb4bitComputeDtype")
    """bnb4bitComputeDtype is the type that is computed in: Auto is BFloat16 on an accelerator and Float32 on a CPU."""
