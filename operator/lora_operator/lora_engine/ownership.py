"""Who holds which fields of a foreign object, as its managedFields tell. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from lora_operator import labels

Object = dict[str, Any]


def managers(deployment: Object, path: tuple[str, ...]) -> list[str]:
    """Return the field managers that hold the field at a path of managedFields."""
    return [entry["manager"] for entry in _entries(deployment) if _holds(entry.get("fieldsV1", {}), path)]


def lies_beside(obj: Object, engine: str) -> bool:
    """Tell whether an object of the engine's namespace is one that we made beside this LoRAEngine."""
    marks = obj["metadata"].get("labels") or {}
    return bool(marks.get(labels.ENGINE) == engine and marks.get(labels.MANAGED_BY) == labels.FIELD_MANAGER)


def is_ours(deployment: Object) -> bool:
    """Tell whether our manager has applied fields of the Deployment."""
    return any(
        entry["manager"] == labels.FIELD_MANAGER and entry["operation"] == "Apply" for entry in _entries(deployment)
    )


def last_other_manager(deployment: Object) -> str:
    """Return who wrote the Deployment last, but for us and for status."""
    others = [
        entry
        for entry in _entries(deployment)
        if entry["manager"] != labels.FIELD_MANAGER and not entry.get("subresource")
    ]
    last = max(others, key=lambda entry: entry.get("time", ""), default=None)
    return last["manager"] if last else "another field manager"


def _entries(deployment: Object) -> Iterator[Object]:
    yield from deployment["metadata"].get("managedFields") or []


def _holds(fields: Object, path: Iterable[str]) -> bool:
    for step in path:
        if step not in fields:
            return False
        fields = fields[step]
    return True
