"""What a LoRAEngine's status says: conditions, flags as read, and counts. Pure.

Ready means that the engine's pods hold adapters: adopted, and at least one of them Ready with its agent.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from lora_operator.api.lora_engine import (
    EngineAdapters,
    EngineCondition,
    EngineDevice,
    EngineFacts,
    EngineFlags,
    EnginePods,
    EngineSlots,
    EngineStatus,
)
from lora_operator.conditions import Fact, false, fold, true
from lora_operator.engines.refusal import Refusal
from lora_operator.lora_engine.observed import Observed
from lora_operator.lora_engine.plan import Plan
from lora_operator.pods import is_ready
from lora_operator.protocol.door import Report, State
from lora_operator.protocol.manifest import Entry

Object = dict[str, Any]


def next_status(observed: Observed, todo: Plan, rejected: Refusal | None, *, now: datetime) -> EngineStatus:
    """Return the status after this pass; `rejected` is why the apiserver did not take the patch."""
    before = observed.engine.status
    generation = observed.engine.metadata.generation
    flags = _flags(todo, before)
    slots = EngineSlots(used=_used(observed), total=flags.max_cpu_loras if flags else None)
    facts = [*_summary(observed, todo, todo.refusal or rejected), *_warnings(observed, todo, slots)]
    return EngineStatus(
        observed_generation=generation,
        conditions=fold(before.conditions if before else (), facts, generation=generation, now=now),
        base_model=todo.workload.base_model if todo.workload else (before.base_model if before else None),
        flags=flags,
        engine=_facts(observed, todo, before),
        pods=EnginePods(ready=len(_ready(observed)), total=len(_running(observed))),
        adapters=_adapters(observed, todo),
        slots=slots,
        agent_image=todo.record.image if todo.record else None,
    )


def leaving_status(observed: Observed, left: Sequence[str], *, now: datetime) -> EngineStatus:
    """Return the status of a LoRAEngine that is being deleted, with what it waits for."""
    before = observed.engine.status or EngineStatus()
    message = "the Deployment is given back; left: " + ("; ".join(left) or "nothing")
    facts = [
        false(EngineCondition.READY, "Leaving", message),
        false(EngineCondition.ADOPTED, "Leaving", message),
        true(EngineCondition.RECONCILING, "Leaving", message),
    ]
    generation = observed.engine.metadata.generation
    folded = fold(before.conditions, facts, generation=generation, now=now)
    return before.model_copy(update={"conditions": folded, "observed_generation": generation})


def _summary(observed: Observed, todo: Plan, refusal: Refusal | None) -> list[Fact]:
    in_place = todo.adopted or (todo.apply and refusal is None)
    if refusal is not None:
        adopted = true(EngineCondition.ADOPTED, "Adopted") if in_place else _no(EngineCondition.ADOPTED, refusal)
        contended = [true(EngineCondition.CONTENDED, refusal.reason, refusal.message)]
        stalled = true(EngineCondition.STALLED, refusal.reason, refusal.message)
        return [
            _no(EngineCondition.READY, refusal),
            adopted,
            stalled,
            *(contended if refusal.reason == EngineCondition.CONTENDED else []),
        ]
    adopted = true(EngineCondition.ADOPTED, "Adopted", "the Deployment's pods come with the agent")
    if todo.manifest is not None and todo.manifest.problem is not None:
        problem = todo.manifest.problem
        return [
            _no(EngineCondition.READY, problem),
            adopted,
            true(EngineCondition.STALLED, problem.reason, problem.message),
        ]
    return [adopted, *_readiness(observed, todo)]


def _readiness(observed: Observed, todo: Plan) -> list[Fact]:
    deployment = observed.deployment or {}
    rolling = todo.apply or _rolls(deployment)
    progress = [true(EngineCondition.RECONCILING, "RollingOut", _rollout(observed))] if rolling else []
    if _ready(observed):
        return [true(EngineCondition.READY, "Serving", "at least one pod is Ready with its agent"), *progress]
    if not rolling and deployment.get("spec", {}).get("replicas", 1) == 0:
        return [false(EngineCondition.READY, "NoPods", "the Deployment is scaled to 0: scale it up to serve adapters")]
    if stuck := _stuck(deployment):
        return [
            false(EngineCondition.READY, "RolloutStuck", stuck),
            true(EngineCondition.STALLED, "RolloutStuck", stuck),
        ]
    message = _rollout(observed)
    return [
        false(EngineCondition.READY, "RollingOut", message),
        true(EngineCondition.RECONCILING, "RollingOut", message),
    ]


def _warnings(observed: Observed, todo: Plan, slots: EngineSlots) -> list[Fact]:
    warnings: list[Fact] = []
    newest = observed.defaults.image
    if todo.record is not None and observed.engine.spec.agent.image is None and todo.record.image != newest:
        message = (
            f"the agent is {todo.record.image}: set spec.agent.image to {newest}, which restarts the engine's pods"
        )
        warnings.append(true(EngineCondition.AGENT_OUTDATED, "AgentOutdated", message))
    if slots.total is not None and slots.used > slots.total:
        message = (
            f"{slots.used} adapters were loaded into one engine that keeps {slots.total}: raise --max-cpu-loras, or"
            " each request for one that was dropped loads it again"
        )
        warnings.append(true(EngineCondition.SLOTS_EXCEEDED, "SlotsExceeded", message))
    return warnings


def _no(kind: EngineCondition, refusal: Refusal) -> Fact:
    return false(kind, refusal.reason, refusal.message)


def _flags(todo: Plan, before: EngineStatus | None) -> EngineFlags | None:
    if todo.workload is not None:
        return todo.workload.flags
    return before.flags if before else None


def _facts(observed: Observed, todo: Plan, before: EngineStatus | None) -> EngineFacts:
    """Return what is known beside the flags; the version stays while pods are unheard, or don't agree."""
    known = (before.engine if before else None) or EngineFacts()
    told = {report.engine.version for report in observed.reports.values() if report.engine.version}
    return EngineFacts(
        version=told.pop()[:64] if len(told) == 1 else known.version,
        device=EngineDevice(todo.workload.device) if todo.workload is not None else known.device,
    )


def _running(observed: Observed) -> list[Object]:
    over = {"Succeeded", "Failed"}
    return [pod for pod in observed.pods if pod.get("status", {}).get("phase") not in over]


def _ready(observed: Observed) -> list[Object]:
    return [pod for pod in _running(observed) if is_ready(pod)]


def _used(observed: Observed) -> int:
    """Return the most adapters that one pod has loaded; not less than was known while some pod is unheard."""
    heard = [report.engine.loads_since_start for report in observed.reports.values()]
    before = observed.engine.status.slots if observed.engine.status else None
    unheard = any(pod["metadata"]["name"] not in observed.reports for pod in _ready(observed))
    return max([*heard, before.used if before is not None and unheard else 0])


def _adapters(observed: Observed, todo: Plan) -> EngineAdapters:
    entries = todo.manifest.entries if todo.manifest else ()
    reports = [observed.reports.get(pod["metadata"]["name"]) for pod in _ready(observed)]
    desired = {entry.owner.uid for entry in entries}
    loaded = {entry.owner.uid for entry in entries if reports and all(_answers(entry, report) for report in reports)}
    return EngineAdapters(loaded=len(loaded), desired=len(desired))


def _answers(entry: Entry, report: Report | None) -> bool:
    told = report.entries if report is not None else ()
    return any(item.engine_name == entry.engine_name and item.state is State.LOADED for item in told)


def _rolls(deployment: Object) -> bool:
    """Tell whether a rollout is under way, as `kubectl rollout status` does."""
    status = deployment.get("status") or {}
    if status.get("observedGeneration", 0) < deployment["metadata"]["generation"]:
        return True
    updated: int = status.get("updatedReplicas", 0)
    wanted: int = deployment["spec"].get("replicas", 1)
    total: int = status.get("replicas", 0)
    available: int = status.get("availableReplicas", 0)
    return updated < wanted or total > updated or available < updated


def _stuck(deployment: Object) -> str:
    for condition in (deployment.get("status") or {}).get("conditions") or []:
        if condition["type"] == "Progressing" and condition["status"] == "False":
            return f"the Deployment's rollout does not get on: {condition.get('message', condition['reason'])}"
    return ""


def _rollout(observed: Observed) -> str:
    return f"{len(_ready(observed))} of {len(_running(observed))} pods with the agent are Ready"
