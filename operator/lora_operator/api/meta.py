"""What the three kinds share: an object's metadata, its conditions, references, and what a pod asks for."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

from pydantic import Field

from lora_operator.api.schema import (
    DataKey,
    IntOrQuantity,
    Model,
    Name,
    Namespace,
    ShortName,
    Timestamp,
    atomic_list,
)
from lora_operator.labels import REQUESTED_AT, Key


class ConditionStatus(StrEnum):
    """A condition's answer."""

    TRUE = "True"
    FALSE = "False"
    UNKNOWN = "Unknown"


class Condition(Model):
    """One aspect of an object's state, with the fields and limits of Kubernetes' own metav1.Condition."""

    type: Annotated[str, Field(max_length=316, pattern=r"^[A-Za-z]([A-Za-z0-9]*)$")]
    """type of the condition, in CamelCase."""
    status: ConditionStatus
    """status of the condition: True, False or Unknown."""
    observed_generation: Annotated[int, Field(ge=0)] | None = None
    """observedGeneration is the generation of the spec that the condition speaks of."""
    last_transition_time: Timestamp
    """lastTransitionTime is when the status last changed."""
    reason: Annotated[str, Field(min_length=1, max_length=1024, pattern=r"^[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?$")]
    """reason of the last transition, as one word in CamelCase; the Event carries the same word."""
    message: Annotated[str, Field(max_length=32768)] = ""
    """message for people: the cause, and the field or flag to change."""


class ObjectMeta(Model):
    """What the operator reads of an object's metadata."""

    name: str
    namespace: str = ""
    uid: str = ""
    generation: int = 0
    resource_version: str = ""
    labels: dict[str, str] = Field(default_factory=dict)
    annotations: dict[str, str] = Field(default_factory=dict)
    finalizers: tuple[str, ...] = ()
    creation_timestamp: Timestamp | None = None
    deletion_timestamp: Timestamp | None = None


class Object(Model):
    """An object of ours as the apiserver gives it. The class's name is the kind."""

    metadata: ObjectMeta

    @classmethod
    def plural(cls) -> str:
        """Return the kind's name in URLs."""
        return f"{cls.__name__.lower()}s"

    @property
    def key(self) -> Key:
        """Return the key of the pass that is about this object."""
        return Key(type(self).__name__, self.metadata.namespace, self.metadata.name)

    @property
    def deleting(self) -> bool:
        """Tell whether the object waits for its finalisers."""
        return self.metadata.deletion_timestamp is not None

    @property
    def requested_at(self) -> str:
        """Return the annotation that asks for another resolution of what is pinned."""
        return self.metadata.annotations.get(REQUESTED_AT, "")


class LocalRef(Model):
    """A reference to an object in the same namespace."""

    name: Name
    """name of the object, in the same namespace."""


class KeyRef(Model):
    """A reference to one key of a Secret or ConfigMap in the same namespace."""

    name: Name
    """name of the object, in the same namespace."""
    key: DataKey
    """key in the object's data."""


class EngineRef(Model):
    """A reference to a LoRAEngine."""

    name: ShortName
    """name of the LoRAEngine."""
    namespace: Namespace | None = None
    """namespace of the LoRAEngine; absent: the namespace of the object that refers to it."""


class Tenant(Model):
    """A namespace that may call an adapter."""

    namespace: Namespace
    """namespace whose ServiceAccounts and tokens may call the adapter."""


Amounts = Annotated[dict[str, IntOrQuantity], Field(max_length=16)]


class Resources(Model):
    """What a container asks for and is held to, as in a pod."""

    requests: Amounts | None = None
    """requests are what the scheduler keeps free for the container."""
    limits: Amounts | None = None
    """limits are what the container is held to, such as `nvidia.com/gpu: 1`."""


class TolerationOperator(StrEnum):
    """How a toleration compares."""

    EXISTS = "Exists"
    EQUAL = "Equal"


class TaintEffect(StrEnum):
    """What a taint does to a pod that doesn't tolerate it."""

    NO_SCHEDULE = "NoSchedule"
    PREFER_NO_SCHEDULE = "PreferNoSchedule"
    NO_EXECUTE = "NoExecute"


class Toleration(Model):
    """A toleration, as in a pod."""

    key: Annotated[str, Field(max_length=317)] | None = None
    """key of the taint; absent, with operator Exists: every taint."""
    operator: TolerationOperator = TolerationOperator.EQUAL
    """operator compares the taint's value: Exists asks for none."""
    value: Annotated[str, Field(max_length=63)] | None = None
    """value of the taint, for operator Equal."""
    effect: TaintEffect | None = None
    """effect of the taint; absent: every effect."""
    toleration_seconds: Annotated[int, Field(ge=0)] | None = None
    """tolerationSeconds is how long a NoExecute taint is tolerated."""


Tolerations = Annotated[tuple[Toleration, ...], Field(max_length=16, json_schema_extra=atomic_list())]
NodeSelector = Annotated[dict[str, Annotated[str, Field(max_length=63)]], Field(max_length=16)]
