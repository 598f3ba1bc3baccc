"""Every name that the operator puts on an object: group, labels, annotations, finaliser, and the key of a pass.

Nobody builds a label, an annotation or a key from strings elsewhere.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

GROUP: Final = "lora-operator.io"
VERSION: Final = "v1alpha1"
API_VERSION: Final = f"{GROUP}/{VERSION}"

FIELD_MANAGER: Final = "lora-operator"
FINALIZER_MANAGER: Final = f"{FIELD_MANAGER}-finalizer"
"""Another one: an apply gives up what the same manager applied before and does not repeat."""
FINALIZER: Final = f"{GROUP}/cleanup"

MANAGED_BY: Final = "app.kubernetes.io/managed-by"
ENGINE: Final = f"{GROUP}/engine"
ROLE: Final = f"{GROUP}/role"
"""On pods that we watch: ENGINE_ROLE or TRAINER_ROLE."""
ENGINE_ROLE: Final = "engine"
TRAINER_ROLE: Final = "trainer"
SHARD: Final = f"{GROUP}/shard"
TRAINING_JOB: Final = f"{GROUP}/training-job"

SUSPEND: Final = f"{GROUP}/suspend"
REQUESTED_AT: Final = f"{GROUP}/requested-at"


class Key(NamedTuple):
    """What one pass is about: an object by kind, namespace and name."""

    kind: str
    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.kind} {self.namespace}/{self.name}"


def key_of(obj: dict[str, Any]) -> Key:
    """Return the key of an object as the apiserver gave it."""
    metadata = obj["metadata"]
    return Key(obj["kind"], metadata.get("namespace", ""), metadata["name"])


def is_suspended(obj: dict[str, Any]) -> bool:
    """Tell whether the annotation asks us to write nothing for this object but its deletion."""
    return (obj["metadata"].get("annotations") or {}).get(SUSPEND) == "true"
