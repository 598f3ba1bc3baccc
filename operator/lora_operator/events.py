"""Events: what `kubectl describe` tells of an object's transitions. Reasons are the conditions' own.

An Event says something once: the same words about the same object are not repeated within ten minutes, and an Event
that can't be posted is logged and forgotten, never a reason to fail a pass.
"""

from __future__ import annotations

import hashlib
import logging
import platform
from collections import OrderedDict
from collections.abc import Callable
from datetime import datetime
from typing import Any, Final, Literal

from kubernetes.aio.client.exceptions import ApiException

from lora_operator.clients.kube import Kube
from lora_operator.labels import GROUP

logger = logging.getLogger(__name__)

REPEAT_SECONDS: Final = 600
REMEMBERED: Final = 10_000
NOTE_LIMIT: Final = 1024

Object = dict[str, Any]


class Recorder:
    """Posts Events about objects, each once."""

    def __init__(self, kube: Kube, *, now: Callable[[], datetime]) -> None:
        self._kube = kube
        self._now = now
        self._said: OrderedDict[tuple[str, str, str], datetime] = OrderedDict()

    async def say(self, obj: Object, kind: Literal["Normal", "Warning"], reason: str, note: str) -> None:
        """Post an Event about `obj`, unless the same was said of it a moment ago."""
        now = self._now()
        said = (obj["metadata"]["uid"], reason, note)
        before = self._said.get(said)
        if before is not None and (now - before).total_seconds() < REPEAT_SECONDS:
            return
        self._said[said] = now
        if len(self._said) > REMEMBERED:
            self._said.popitem(last=False)
        try:
            await self._kube.create(event(obj, kind=kind, reason=reason, note=note, now=now))
        except (ApiException, OSError) as error:
            logger.warning("an Event could not be posted: %s", error, extra={"reason": reason})


def event(obj: Object, *, kind: str, reason: str, note: str, now: datetime) -> Object:
    """Return an events.k8s.io/v1 Event about `obj`."""
    metadata = obj["metadata"]
    namespace = metadata.get("namespace") or "default"
    stamp = now.isoformat(timespec="microseconds").replace("+00:00", "Z")
    digest = hashlib.sha256(f"{metadata['uid']}{reason}{note}{stamp}".encode()).hexdigest()[:16]
    return {
        "apiVersion": "events.k8s.io/v1",
        "kind": "Event",
        "metadata": {"name": f"{metadata['name'][:200]}.{digest}", "namespace": namespace},
        "eventTime": stamp,
        "type": kind,
        "reason": reason,
        "action": reason,
        "note": note[:NOTE_LIMIT],
        "reportingController": f"{GROUP}/operator",
        "reportingInstance": platform.node()[:128] or "operator",
        "regarding": {
            "apiVersion": obj["apiVersion"],
            "kind": obj["kind"],
            "namespace": metadata.get("namespace"),
            "name": metadata["name"],
            "uid": metadata["uid"],
            "resourceVersion": metadata.get("resourceVersion"),
        },
    }
