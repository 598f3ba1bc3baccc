"""Our finaliser on an object of ours, put on and taken off by server-side apply. Pure.

The apply carries the uid, so it can never bring back an object that is gone.
"""

from __future__ import annotations

from typing import Any

from lora_operator.labels import FINALIZER

Object = dict[str, Any]


def with_finalizer(obj: Object) -> Object | None:
    """Return the apply that adds our finaliser; None where it is there."""
    return None if FINALIZER in _finalizers(obj) else _body(obj, [FINALIZER])


def without_finalizer(obj: Object) -> Object | None:
    """Return the apply that removes our finaliser; None where it is not there."""
    return _body(obj, []) if FINALIZER in _finalizers(obj) else None


def _finalizers(obj: Object) -> list[str]:
    return obj["metadata"].get("finalizers") or []


def _body(obj: Object, finalizers: list[str]) -> Object:
    metadata = obj["metadata"]
    identity = {"name": metadata["name"], "namespace": metadata["namespace"], "uid": metadata["uid"]}
    return {
        "apiVersion": obj["apiVersion"],
        "kind": obj["kind"],
        "metadata": identity | ({"finalizers": finalizers} if finalizers else {}),
    }
