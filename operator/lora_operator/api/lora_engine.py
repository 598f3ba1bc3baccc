"""LoRAEngine: the platform team's consent that a Deployment of an inference engine holds adapters."""

from __future__ import annotations

from enum import IntEnum, StrEnum
from typing import Annotated, Literal

from pydantic import ConfigDict, Field

from lora_operator.api.meta import Condition, Object, Resources
from lora_operator.api.schema import (
    Count,
    Image,
    Model,
    ModelName,
    Name,
    Quantity,
    Word,
    atomic_list,
    map_list,
    rules,
    set_list,
)


class EngineCondition(StrEnum):
    """The conditions of a LoRAEngine. Those after Adopted are there only while they are true."""

    READY = "Ready"
    ADOPTED = "Adopted"
    RECONCILING = "Reconciling"
    STALLED = "Stalled"
    AGENT_OUTDATED = "AgentOutdated"
    CONTENDED = "Contended"
    SLOTS_EXCEEDED = "SlotsExceeded"


class EngineType(StrEnum):
    """The engines that the operator can speak to."""

    VLLM = "VLLM"


class MaxLoraRank(IntEnum):
    """The values that vLLM's `--max-lora-rank` takes."""

    R1 = 1
    R8 = 8
    R16 = 16
    R32 = 32
    R64 = 64
    R128 = 128
    R256 = 256
    R320 = 320
    R512 = 512


class EngineDtype(StrEnum):
    """The values that vLLM's `--dtype` and `--lora-dtype` take."""

    AUTO = "auto"
    BFLOAT16 = "bfloat16"
    FLOAT = "float"
    FLOAT16 = "float16"
    FLOAT32 = "float32"
    HALF = "half"


class EngineDevice(StrEnum):
    """What an engine computes on, as far as adapters are concerned: some are served right on one of them only."""

    CPU = "cpu"
    CUDA = "cuda"
    """Any accelerator."""


class TargetRef(Model):
    """The workload that runs the engine, in the LoRAEngine's namespace."""

    kind: Literal["Deployment"] = "Deployment"
    """kind of the workload."""
    name: Name
    """name of the workload, in the LoRAEngine's namespace."""


class NamespacesFrom(StrEnum):
    """Which namespaces may bring adapters."""

    SAME = "Same"
    ALL = "All"
    SELECTOR = "Selector"


LabelValue = Annotated[str, Field(max_length=63)]
LabelKey = Annotated[str, Field(min_length=1, max_length=317)]


class SelectorOperator(StrEnum):
    """How one requirement of a label selector compares."""

    IN = "In"
    NOT_IN = "NotIn"
    EXISTS = "Exists"
    DOES_NOT_EXIST = "DoesNotExist"


class SelectorRequirement(Model):
    """One requirement of a label selector, as Kubernetes has it."""

    key: LabelKey
    """key of the label."""
    operator: SelectorOperator
    """operator compares the label with the values."""
    values: Annotated[tuple[LabelValue, ...], Field(max_length=64, json_schema_extra=set_list())] = ()
    """values to compare with, for In and NotIn."""

    def matches(self, labels: dict[str, str]) -> bool:
        """Tell whether these labels meet the requirement."""
        match self.operator:
            case SelectorOperator.IN:
                return labels.get(self.key) in self.values
            case SelectorOperator.NOT_IN:
                return labels.get(self.key) not in self.values
            case SelectorOperator.EXISTS:
                return self.key in labels
            case SelectorOperator.DOES_NOT_EXIST:
                return self.key not in labels


class LabelSelector(Model):
    """A label selector, as Kubernetes has it: every requirement must be met."""

    match_labels: Annotated[dict[str, LabelValue], Field(max_length=16)] = Field(default_factory=dict)
    """matchLabels are labels that must be there with these values."""
    match_expressions: Annotated[
        tuple[SelectorRequirement, ...], Field(max_length=16, json_schema_extra=atomic_list())
    ] = ()
    """matchExpressions are further requirements."""

    def matches(self, labels: dict[str, str]) -> bool:
        """Tell whether these labels meet every requirement."""
        return all(labels.get(key) == value for key, value in self.match_labels.items()) and all(
            requirement.matches(labels) for requirement in self.match_expressions
        )


class AllowedNamespaces(Model):
    """The namespaces whose adapters the engine takes."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            (
                "(has(self.from) && self.from == 'Selector') == has(self.selector)",
                "selector belongs to from: Selector, and is needed there",
            )
        )
    )

    from_: NamespacesFrom = Field(default=NamespacesFrom.SAME, alias="from")
    """from says which namespaces: Same (the engine's own), All, or those that the selector picks."""
    selector: LabelSelector | None = None
    """selector picks namespaces by their labels, for from: Selector."""


class EngineFlags(Model):
    """The engine's LoRA flags, where they can't be read from its command line, and in the status as they were read."""

    max_lora_rank: MaxLoraRank | None = None
    """maxLoraRank is vLLM's `--max-lora-rank`: the highest rank of an adapter."""
    max_loras: Annotated[int, Field(ge=1, le=10000)] | None = None
    """maxLoras is vLLM's `--max-loras`: how many adapters one batch may use."""
    max_cpu_loras: Annotated[int, Field(ge=1, le=100000)] | None = None
    """maxCpuLoras is vLLM's `--max-cpu-loras`: how many adapters the engine keeps in memory."""
    dtype: EngineDtype | None = None
    """dtype is vLLM's `--dtype`: what the base's weights are computed in."""
    lora_dtype: EngineDtype | None = None
    """loraDtype is vLLM's `--lora-dtype`: what adapters are computed in; auto is as the base."""
    lora_target_modules: (
        Annotated[
            tuple[Annotated[str, Field(min_length=1, max_length=128)], ...],
            Field(min_length=1, max_length=64, json_schema_extra=set_list()),
        ]
        | None
    ) = None
    """loraTargetModules are vLLM's `--lora-target-modules`: the only modules on which it applies adapters; absent:
    all, or not known."""


class AgentSettings(Model):
    """The agent, the sidecar that is added to the engine's pods."""

    image: Image | None = None
    """image of the agent; absent: the one that the operator was installed with when it adopted the Deployment."""
    resources: Resources | None = None
    """resources of the agent's container; absent: those that the operator was installed with."""
    adapters_size: Quantity = "20Gi"
    """adaptersSize is how many bytes of adapters a pod may hold; their volume's limit is 10 % above it."""
    ready_timeout_seconds: Annotated[int, Field(ge=1, le=3600)] = 120
    """readyTimeoutSeconds bounds how long a pod's adapters may keep it from being Ready once its engine answers."""


class EngineSpec(Model):
    """What the platform team says."""

    type: EngineType = EngineType.VLLM
    """type of the engine."""
    target_ref: Annotated[
        TargetRef,
        Field(
            json_schema_extra=rules(
                (
                    "self == oldSelf",
                    "targetRef is immutable: delete this LoRAEngine, which leaves its Deployment, and create another",
                )
            )
        ),
    ]
    """targetRef is the workload that runs the engine. It can't be changed."""
    container: Annotated[str, Field(min_length=1, max_length=63, pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$")] | None = (
        None
    )
    """container that runs the engine; absent: the only one whose command, arguments or image name vLLM."""
    base_model: ModelName | None = None
    """baseModel is the Hub id of the base model; absent: the engine's `--model` or `--served-model-name`.
    Needed where `--model` is a path."""
    allowed_namespaces: AllowedNamespaces = AllowedNamespaces()
    """allowedNamespaces are the namespaces whose adapters the engine takes."""
    flags: EngineFlags | None = None
    """flags say what the engine's command line says, where that can't be read. The engine has to answer on 127.0.0.1
    then, on its `--port`; where not even that can be read, on 8000, or else on its container's port called http, or
    else on the first one."""
    agent: AgentSettings = AgentSettings()
    """agent is the sidecar that fetches and loads adapters."""


class EngineFacts(Model):
    """What is known of the engine beside its flags; a judgement of an adapter may depend on it."""

    version: Annotated[str, Field(max_length=64)] | None = None
    """version of the engine, as it says itself; absent until one has answered."""
    device: EngineDevice | None = None
    """device that the engine computes on: cpu, or cuda for any accelerator."""


class EnginePods(Model):
    """The engine's pods, counted."""

    ready: Count = 0
    """ready pods of the engine."""
    total: Count = 0
    """total of the engine's pods."""


class EngineAdapters(Model):
    """The engine's adapters, counted."""

    loaded: Count = 0
    """loaded adapters: those that answer on every Ready pod."""
    desired: Count = 0
    """desired adapters: those that the engine's pods are to hold."""


class EngineSlots(Model):
    """How much of the engine's memory for adapters is taken."""

    used: Count = 0
    """used slots: the most distinct adapters that one pod has loaded since its engine started."""
    total: Count | None = None
    """total of slots: the engine's `--max-cpu-loras`."""


class EngineStatus(Model):
    """What the operator sees of the engine."""

    observed_generation: Count | None = None
    """observedGeneration is the generation of the spec that this status speaks of."""
    conditions: Annotated[tuple[Condition, ...], Field(max_length=16, json_schema_extra=map_list("type"))] = ()
    """conditions of the engine: Ready, Adopted, Reconciling, Stalled, AgentOutdated, Contended, SlotsExceeded."""
    base_model: Word | None = None
    """baseModel is the base model as given or read."""
    flags: EngineFlags | None = None
    """flags are the engine's LoRA flags as given or read."""
    engine: EngineFacts | None = None
    """engine is what is known of the engine beside its flags."""
    pods: EnginePods | None = None
    """pods of the engine, counted."""
    adapters: EngineAdapters | None = None
    """adapters of the engine, counted."""
    slots: EngineSlots | None = None
    """slots are the engine's room for adapters."""
    agent_image: Annotated[str, Field(max_length=512)] | None = None
    """agentImage is the agent's image in the Deployment."""


class LoRAEngine(Object):
    """LoRAEngine says that a Deployment of an inference engine holds LoRA adapters.

    Creating it adopts the Deployment, which restarts its pods once; deleting it leaves the Deployment.
    """

    spec: EngineSpec
    """spec says which Deployment holds adapters, and whose."""
    status: EngineStatus | None = None
    """status is what the operator sees of the engine."""
