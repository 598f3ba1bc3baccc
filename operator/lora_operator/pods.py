"""What a pod's own status tells of it. Pure."""

from __future__ import annotations

from typing import Any

Object = dict[str, Any]


def is_ready(pod: Object) -> bool:
    """Tell whether a pod takes traffic: Ready and not on its way out."""
    conditions = (pod.get("status") or {}).get("conditions") or []
    ready = any(condition["type"] == "Ready" and condition["status"] == "True" for condition in conditions)
    return ready and "deletionTimestamp" not in pod["metadata"]


def is_starting(pod: Object) -> bool:
    """Tell whether a pod may yet become Ready, or its successor may: not one that ended and stays to be looked at."""
    return not is_ready(pod) and (pod.get("status") or {}).get("phase") not in {"Succeeded", "Failed"}
