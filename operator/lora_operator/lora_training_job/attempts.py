"""What the pods of a Job tell: one attempt each, waiting, running or ended, with the trainer's result. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from lora_operator.protocol.training import ExitCode, Reason, Result, read_result

Object = Mapping[str, Any]

CONTAINER: Final = "trainer"
KILLED: Final = 137
"""128 + SIGKILL: of the kernel's OOM killer, and of whoever else does not wait for an end."""


@dataclass(frozen=True, kw_only=True)
class Ended:
    """How an attempt ended. `reason` and `message` are for people; `result` is None where the trainer left none."""

    reason: str
    message: str
    result: Result | None = None
    disrupted: bool = False
    """The cluster ended it, not the trainer: it does not count."""
    hopeless: bool = False
    """Another attempt would end the same way, which its exit code alone does not tell the Job."""


@dataclass(frozen=True, kw_only=True)
class Attempt:
    """One pod of the Job."""

    pod: str
    running: bool = False
    hindrance: tuple[str, str] | None = None
    """Why it does not start: a reason, and a sentence with what to change."""
    ended: Ended | None = None


def attempt(pod: Object) -> Attempt:
    """Read one pod."""
    name, status = pod["metadata"]["name"], pod.get("status") or {}
    state = _state(status)
    if "terminated" in state:
        return Attempt(pod=name, ended=_ended(state["terminated"], disrupted=_disrupted(status)))
    if status.get("phase") in {"Failed", "Succeeded"}:
        reason = status.get("reason") or "PodFailed"
        message = status.get("message") or f"pod {name} was ended before its trainer was"
        return Attempt(pod=name, ended=Ended(reason=reason, message=message, disrupted=_disrupted(status)))
    if "running" in state:
        return Attempt(pod=name, running=True)
    return Attempt(pod=name, hindrance=_hindrance(pod, status, state))


def _state(status: Object) -> Object:
    for container in status.get("containerStatuses") or []:
        if container["name"] == CONTAINER:
            state: Object = container.get("state") or {}
            return state
    return {}


def _disrupted(status: Object) -> bool:
    conditions = status.get("conditions") or []
    return any(condition["type"] == "DisruptionTarget" and condition["status"] == "True" for condition in conditions)


def _ended(terminated: Object, *, disrupted: bool) -> Ended:
    result = read_result(terminated.get("message") or "")
    code = terminated.get("exitCode", 0)
    disrupted = disrupted or code == ExitCode.PREEMPTED
    if result is not None:
        return Ended(reason=result.reason.value, message=result.message, result=result, disrupted=disrupted)
    if terminated.get("reason") == "OOMKilled":
        message = (
            "the trainer was killed for its memory: raise spec.resources.limits.memory, or lower "
            "spec.training.perDeviceTrainBatchSize or spec.training.maxLength"
        )
        return Ended(reason=Reason.OUT_OF_MEMORY.value, message=message, disrupted=disrupted, hopeless=not disrupted)
    if code == KILLED:
        message = (
            "the trainer was killed (SIGKILL), and not for spec.resources.limits.memory: its pod was deleted and did"
            " not end within its grace period, or its node was short of memory or lost; the Events of pod and node tell"
        )
        return Ended(reason="Killed", message=message, disrupted=disrupted)
    said = terminated.get("message") or "see the log of its pod"
    message = (
        f"the trainer ended with exit code {code} ({terminated.get('reason') or 'no reason'}) and no result: {said}"
    )
    return Ended(reason=Reason.TRAINING_FAILED.value, message=message[:1024], disrupted=disrupted)


def _hindrance(pod: Object, status: Object, state: Object) -> tuple[str, str] | None:
    waiting = state.get("waiting") or {}
    reason, said = waiting.get("reason", ""), waiting.get("message") or ""
    if "Image" in reason:
        image = next((one["image"] for one in pod["spec"]["containers"] if one["name"] == CONTAINER), "")
        fix = "correct the chart's trainer.image, or imagePullSecrets"
        return "TrainerImageUnavailable", f"{image} can't be pulled ({reason}): {fix}. {said}".rstrip(". ")
    if reason.endswith("Error"):
        return reason, said or f"the container of pod {pod['metadata']['name']} can't be made"
    for condition in status.get("conditions") or []:
        if condition["type"] == "PodScheduled" and condition["status"] == "False":
            return "Unschedulable", condition.get("message") or "no node takes the trainer's pod"
    return None
