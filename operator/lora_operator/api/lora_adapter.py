"""LoRAAdapter: serve this adapter, on that engine, to these tenants, under this model name."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

from pydantic import ConfigDict, Field

from lora_operator.api.meta import Condition, EngineRef, KeyRef, LocalRef, Object, Tenant
from lora_operator.api.schema import (
    Count,
    HubRepo,
    Model,
    ModelName,
    Revision,
    ServedName,
    Text,
    Word,
    map_list,
    rules,
    set_list,
)
from lora_operator.labels import Key


class AdapterCondition(StrEnum):
    """The conditions of a LoRAAdapter. Reconciling and Stalled are there only while they are true."""

    READY = "Ready"
    RESOLVED = "Resolved"
    COMPATIBLE = "Compatible"
    LOADED = "Loaded"
    RECONCILING = "Reconciling"
    STALLED = "Stalled"


class PollMode(StrEnum):
    """Whether a moving revision is followed."""

    NEVER = "Never"
    INTERVAL = "Interval"


class Poll(Model):
    """Whether and how often the revision is resolved anew."""

    mode: PollMode = PollMode.NEVER
    """mode is Never (a resolution is kept until the spec or the annotation asks for another) or Interval."""
    interval_seconds: Annotated[int, Field(ge=30, le=604800)] = 300
    """intervalSeconds is the time between two resolutions, for mode Interval."""


class HubSource(Model):
    """An adapter in a repository of the Hugging Face Hub."""

    repo: HubRepo
    """repo on the Hub, such as `acme/support-lora`."""
    revision: Revision = "main"
    """revision is a branch, tag or commit; it is resolved to a commit, and that is kept."""
    token_secret_ref: KeyRef | None = None
    """tokenSecretRef is the Secret's key with a Hub token that may read the repo."""
    poll: Poll = Poll()
    """poll says whether a branch is followed."""


class Source(Model):
    """Where the adapter comes from: exactly one of the fields."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            (
                "[has(self.hub), has(self.trainingJobRef)].filter(given, given).size() == 1",
                "exactly one of hub and trainingJobRef must be given",
            )
        )
    )

    hub: HubSource | None = None
    """hub is a repository of the Hugging Face Hub."""
    training_job_ref: LocalRef | None = None
    """trainingJobRef is a LoRATrainingJob in this namespace whose result is served."""


class AdapterMode(StrEnum):
    """How the adapter is served."""

    DYNAMIC = "Dynamic"


class Loading(StrEnum):
    """When the adapter is loaded."""

    EAGER = "Eager"


class AdapterSpec(Model):
    """What the tenant says."""

    source: Source
    """source of the adapter."""
    base_model: ModelName
    """baseModel is the base model that the adapter was trained on; the engine must serve it."""
    engine_ref: Annotated[
        EngineRef,
        Field(
            json_schema_extra=rules(
                (
                    "self == oldSelf",
                    "engineRef is immutable: create another LoRAAdapter with the same servedName, then delete this one",
                )
            )
        ),
    ]
    """engineRef is the LoRAEngine that serves the adapter. It can't be changed: to move, create another LoRAAdapter."""
    served_name: ServedName | None = None
    """servedName is the name that clients are to put in `model`; absent: the object's name. Stored, not acted on yet.

    Without a gateway clients call the engine by status.current.engineName.
    """
    mode: AdapterMode = AdapterMode.DYNAMIC
    """mode Dynamic loads the adapter into an engine that runs."""
    loading: Loading = Loading.EAGER
    """loading Eager loads the adapter at once and keeps it loaded."""
    tenants: (
        Annotated[tuple[Tenant, ...], Field(min_length=1, max_length=256, json_schema_extra=map_list("namespace"))]
        | None
    ) = None
    """tenants are the namespaces that are to call the adapter; absent: the object's own. Stored, not enforced yet."""


class AdapterVersion(Model):
    """One version of the adapter, pinned."""

    revision: Word = ""
    """revision is the commit."""
    digest: Word = ""
    """digest over the adapter's files: `sha256:` and 64 hexadecimal digits."""
    engine_name: Word = ""
    """engineName is what the engine calls this version; it changes with the content."""
    rank: Count | None = None
    """rank of the adapter: the highest of its modules."""
    lora_alpha: Annotated[str, Field(max_length=32)] | None = None
    """loraAlpha of the adapter, a decimal as a string."""
    target_modules: Annotated[tuple[Word, ...], Field(max_length=256, json_schema_extra=set_list())] = ()
    """targetModules are the modules that the adapter changes."""
    size_bytes: Count | None = None
    """sizeBytes of the adapter's files."""


class Replicas(Model):
    """The engine's pods that are to hold the adapter, counted."""

    desired: Count = 0
    """desired pods: those that are Ready and chosen for the adapter."""
    loaded: Count = 0
    """loaded pods: those on which the adapter answers."""


class PodExample(Model):
    """A pod that doesn't hold the adapter yet."""

    name: Word
    """name of the pod."""
    reason: Word = ""
    """reason why the adapter doesn't answer there."""
    message: Text = ""
    """message of the pod's agent."""


class AdapterStatus(Model):
    """What the operator sees of the adapter."""

    observed_generation: Count | None = None
    """observedGeneration is the generation of the spec that this status speaks of."""
    conditions: Annotated[tuple[Condition, ...], Field(max_length=16, json_schema_extra=map_list("type"))] = ()
    """conditions of the adapter: Ready, Resolved, Compatible, Loaded, Reconciling, Stalled."""
    current: AdapterVersion | None = None
    """current is the version that is served."""
    next: AdapterVersion | None = None
    """next is the version that is to replace it."""
    replicas: Replicas | None = None
    """replicas are the pods that are to hold the adapter, counted."""
    pods: Annotated[tuple[PodExample, ...], Field(max_length=10, json_schema_extra=map_list("name"))] = ()
    """pods are examples, at most ten, of those that don't hold the adapter yet."""


class LoRAAdapter(Object):
    """LoRAAdapter says: serve this adapter, on that engine, to these tenants, under this model name."""

    spec: AdapterSpec
    """spec says how an adapter is to be served."""
    status: AdapterStatus | None = None
    """status is what the operator sees of the adapter."""

    @property
    def engine_key(self) -> Key:
        """Return the key of the LoRAEngine that serves this adapter."""
        ref = self.spec.engine_ref
        return Key("LoRAEngine", ref.namespace or self.metadata.namespace, ref.name)

    @property
    def served_name(self) -> str:
        """Return what clients put in `model`."""
        return self.spec.served_name or self.metadata.name
