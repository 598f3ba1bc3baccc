"""The words that the kinds are written in: the base model, bounded strings and lists, and CEL rules.

All of it ends up in the CRDs (`hack/generators/crds.py`) as bounds and rules that the apiserver checks, so that the
passes never have to. The docstring under a field is its description in `kubectl explain`: it begins with the field's
name. The generator reads it (`hack/generators/described.py`), for pydantic would do so at every start of every program.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Final

from pydantic import AfterValidator, AwareDatetime, BaseModel, ConfigDict, Field, PlainSerializer
from pydantic.alias_generators import to_camel

LIST_TYPE: Final = "x-kubernetes-list-type"
LIST_MAP_KEYS: Final = "x-kubernetes-list-map-keys"
VALIDATIONS: Final = "x-kubernetes-validations"
INT_OR_STRING: Final = "x-kubernetes-int-or-string"


class Model(BaseModel):
    """A part of an object: frozen, camelCase outside, blind to fields of a later CRD."""

    model_config = ConfigDict(
        frozen=True,
        alias_generator=to_camel,
        populate_by_name=True,
        extra="ignore",
    )


def rules(*pairs: tuple[str, str]) -> dict[str, Any]:
    """Return the schema part that makes the apiserver check CEL rules; each comes with the message that it shows."""
    return {VALIDATIONS: [{"rule": rule, "message": message} for rule, message in pairs]}


def set_list() -> dict[str, Any]:
    """Return the schema part of a list of unique scalars, merged item by item."""
    return {LIST_TYPE: "set"}


def atomic_list() -> dict[str, Any]:
    """Return the schema part of a list that one writer owns as a whole."""
    return {LIST_TYPE: "atomic"}


def map_list(*keys: str) -> dict[str, Any]:
    """Return the schema part of a list whose items are told apart, and merged, by these fields."""
    return {LIST_TYPE: "map", LIST_MAP_KEYS: list(keys)}


def _whole_seconds(value: datetime) -> datetime:
    return value.replace(microsecond=0)


def _rfc3339(value: datetime) -> str:
    return value.isoformat().replace("+00:00", "Z")


Timestamp = Annotated[
    AwareDatetime,
    AfterValidator(_whole_seconds),
    PlainSerializer(_rfc3339, return_type=str, when_used="json"),
]
"""A moment as Kubernetes keeps it: to the second, so that what is read back equals what was written."""

Name = Annotated[str, Field(min_length=1, max_length=253, pattern=r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$")]
"""The name of an object of Kubernetes."""
ShortName = Annotated[str, Field(min_length=1, max_length=63, pattern=r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$")]
"""The name of an object of ours: it also has to fit a label."""
Namespace = Annotated[str, Field(min_length=1, max_length=63, pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$")]
DataKey = Annotated[str, Field(min_length=1, max_length=253, pattern=r"^[-._a-zA-Z0-9]+$")]
"""A key in a Secret or a ConfigMap."""
ServedName = Annotated[str, Field(min_length=1, max_length=128, pattern=r"^[A-Za-z0-9._:/-]+$")]
HubRepo = Annotated[
    str,
    Field(
        min_length=1,
        max_length=193,
        pattern=r"^[A-Za-z0-9][A-Za-z0-9_]*([.-][A-Za-z0-9_]+)*(/[A-Za-z0-9][A-Za-z0-9_]*([.-][A-Za-z0-9_]+)*)?$",
    ),
]
Revision = Annotated[str, Field(min_length=1, max_length=255, pattern=r"^[A-Za-z0-9._/-]+$")]
"""A branch, tag or commit of a Hub repository."""
ModelName = Annotated[str, Field(min_length=1, max_length=255, pattern=r"^[^\s]+$")]
"""What an engine calls its base model: most often the Hub's id."""
Image = Annotated[str, Field(min_length=1, max_length=512, pattern=r"^[^\s]+$")]
Decimal = Annotated[str, Field(min_length=1, max_length=32, pattern=r"^[0-9]+([.][0-9]+)?([eE][-+]?[0-9]{1,3})?$")]
"""A decimal as a string: the API has no floats."""
Quantity = Annotated[
    str, Field(min_length=1, max_length=32, pattern=r"^[0-9]+([.][0-9]+)?(m|k|M|G|T|P|E|Ki|Mi|Gi|Ti|Pi|Ei)?$")
]
"""An amount as Kubernetes writes it, such as `20Gi`."""
IntOrQuantity = Annotated[
    int | str,
    Field(json_schema_extra={INT_OR_STRING: True, "maxLength": 32}),
]
"""An amount in a pod's resources: `1` or `16Gi`."""
Text = Annotated[str, Field(max_length=1024)]
"""A sentence for people, in a status."""
Word = Annotated[str, Field(max_length=253)]
"""A short value in a status: a name, a digest, a commit."""
Count = Annotated[int, Field(ge=0)]
