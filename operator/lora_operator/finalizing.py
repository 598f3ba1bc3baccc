"""Our finaliser on an object of ours: put on by server-side apply, taken off by a JSON patch. Pure.

The apply carries the uid, so it can never bring back an object that is gone. It could take off only what our own
manager put on, and a restored backup puts the finaliser on as somebody else: deleting such an object would never end.
"""

from __future__ import annotations

from typing import Any

from lora_operator.labels import FINALIZER

Object = dict[str, Any]


def with_finalizer(obj: Object) -> Object | None:
    """Return the apply that adds our finaliser; None where it is there."""
    if FINALIZER in _finalizers(obj):
        return None
    metadata = obj["metadata"]
    identity = {"name": metadata["name"], "namespace": metadata["namespace"], "uid": metadata["uid"]}
    return {
        "apiVersion": obj["apiVersion"],
        "kind": obj["kind"],
        "metadata": identity | {"finalizers": [FINALIZER]},
    }


def without_finalizer(obj: Object) -> list[Object] | None:
    """Return the JSON patch (RFC 6902) that removes our finaliser from this very object; None where it is not there."""
    finalizers = _finalizers(obj)
    if FINALIZER not in finalizers:
        return None
    place = f"/metadata/finalizers/{finalizers.index(FINALIZER)}"
    return [
        {"op": "test", "path": "/metadata/uid", "value": obj["metadata"]["uid"]},
        {"op": "test", "path": place, "value": FINALIZER},  # somebody may have added or removed one meanwhile
        {"op": "remove", "path": place},
    ]


def _finalizers(obj: Object) -> list[str]:
    return obj["metadata"].get("finalizers") or []
