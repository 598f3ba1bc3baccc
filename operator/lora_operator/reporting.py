"""The last step of every pass: at most one status write, then the Events that its transitions call for.

A status that differs in counts or wording alone is written when it has differed for a while (with jitter), so that a
restarting pod costs no write an adapter. What changes a condition's status or reason is written at once.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any, Final, Literal

from lora_operator.api.schema import Model
from lora_operator.clients.kube import Kube
from lora_operator.events import Recorder
from lora_operator.labels import Key, key_of

Object = dict[str, Any]

PATIENCE: Final = 30.0
"""Seconds for which counts alone must have differed before they are written."""
PATIENT_CONDITIONS: Final = frozenset({"Reconciling"})
"""Conditions that may wait like counts once Ready stands: a pod that was just added is no news of its own."""


class Reporter:
    """Writes statuses and tells Events. Remembers only since when counts differ."""

    def __init__(self, kube: Kube, recorder: Recorder, *, now: Callable[[], datetime]) -> None:
        self._kube = kube
        self._recorder = recorder
        self._now = now
        self._since: dict[Key, tuple[datetime, float]] = {}
        """By object: since when counts have differed, and the jitter of their patience."""

    async def report(self, obj: Object, status: Model, *, patience: float = PATIENCE) -> float | None:
        """Write `status` where it differs from what `obj` has; return the seconds after which to come back, if any.

        What differs in counts alone has to have done so for `patience` seconds.
        """
        key = key_of(obj)
        before = _without_empty(obj.get("status") or {})
        after = _without_empty(status.model_dump(mode="json", by_alias=True, exclude_none=True))
        if before == after:
            self._since.pop(key, None)
            return None
        if _outline(before) == _outline(after):
            fresh = self._now(), random.uniform(1, 1.3)  # noqa: S311 - jitter
            since, jitter = self._since.setdefault(key, fresh)
            due = since + timedelta(seconds=patience * jitter)
            if (wait := (due - self._now()).total_seconds()) > 0:
                return wait
        self._since.pop(key, None)
        await self._kube.apply(_status_patch(obj, after), subresource="status")
        await self._tell(obj, before, after)
        return None

    def forget(self, key: Key) -> None:
        """Forget an object that is gone."""
        self._since.pop(key, None)

    async def _tell(self, obj: Object, before: Object, after: Object) -> None:
        was, ready = _condition(before, "Ready"), _condition(after, "Ready")
        if ready is None or (was is not None and _outline_of(was) == _outline_of(ready)):
            return
        await self._recorder.say(obj, severity(after), ready["reason"], ready.get("message") or ready["reason"])


def severity(status: Object) -> Literal["Normal", "Warning"]:
    """Return how loud an Event about this status is: a warning where it is neither ready, on its way nor paused."""
    fine = any(
        condition["type"] in {"Ready", "Reconciling", "Suspended"} and condition["status"] == "True"
        for condition in status.get("conditions", [])
    )
    return "Normal" if fine else "Warning"


def _without_empty(status: Object) -> Object:
    """Return a status without empty lists: one that an apply empties is gone from the object, one it makes is not."""
    return {name: value for name, value in status.items() if value != []}


def _outline(status: Object) -> Object:
    """Return what of a status is news: everything but counts, examples, messages, and patient conditions."""
    ready = _condition(status, "Ready")
    patient = PATIENT_CONDITIONS if ready is not None and ready["status"] == "True" else frozenset()
    conditions = [
        _outline_of(condition) for condition in status.get("conditions", []) if condition["type"] not in patient
    ]
    counted = {"conditions", "replicas", "pods", "adapters", "slots", "trainerStatus"}
    return {name: value for name, value in status.items() if name not in counted} | {"conditions": conditions}


def _outline_of(condition: Object) -> tuple[Any, ...]:
    return tuple(condition.get(field) for field in ("type", "status", "reason", "observedGeneration"))


def _condition(status: Object, kind: str) -> Object | None:
    return next((condition for condition in status.get("conditions", []) if condition["type"] == kind), None)


def _status_patch(obj: Object, status: Object) -> Object:
    metadata = obj["metadata"]
    identity = {"name": metadata["name"], "namespace": metadata["namespace"], "uid": metadata["uid"]}
    return {"apiVersion": obj["apiVersion"], "kind": obj["kind"], "metadata": identity, "status": status}
