"""What the LoRAAdapter pass tells: conditions, versions, counts. Pure."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from lora_operator.api.lora_adapter import AdapterStatus, AdapterVersion, PodExample, Replicas
from lora_operator.conditions import Fact, false, fold, is_true, true, unknown
from lora_operator.errors import Blocked, PassError
from lora_operator.lora_adapter.observed import Observed, PodView
from lora_operator.lora_adapter.plan import Rollout, answers
from lora_operator.lora_adapter.refusal import NotServableError
from lora_operator.protocol.door import State
from lora_operator.protocol.manifest import Entry

GAP: Final = timedelta(seconds=120)
"""How long a Ready pod may lack a version that had answered everywhere before Ready turns False."""
EXAMPLES: Final = 10
UNDER_WAY: Final = "Loading"
"""The reason for all that passes by itself: fetched, loaded, probed. One word for it, for each turn is a write."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What a pass has come to."""

    rollout: Rollout
    problem: PassError | None = None
    """What stands in the way of the wanted version; the one before it goes on serving."""
    early: bool = False
    """The problem stood before the source was looked at."""
    newer: PassError | None = None
    """Why a newer version of the source was not taken; the wanted one stands."""
    gap: timedelta | None = None
    """For how long a version that had answered everywhere has been missing somewhere."""


@dataclass(frozen=True, kw_only=True)
class Lacking:
    """A Ready pod on which the wanted version does not answer, and why."""

    pod: str
    reason: str
    message: str
    final: bool
    """It has settled: the agent looks again now and then, but only a change of something makes it better."""


def status(observed: Observed, outcome: Outcome) -> AdapterStatus:
    """Return the status after this pass."""
    facts = _facts(observed, outcome)
    target, current = outcome.rollout.target, outcome.rollout.current
    lacking = _lacking(observed.pods, target)
    return AdapterStatus(
        observed_generation=observed.adapter.metadata.generation,
        conditions=fold(
            observed.status.conditions, facts, generation=observed.adapter.metadata.generation, now=observed.now
        ),
        # What served last on an engine that is gone: it tells that engine from one that never was.
        current=_version(current) if observed.engine is not None else observed.status.current,
        next=_version(target) if target is not None and target != current else None,
        replicas=Replicas(desired=len(observed.pods), loaded=len(observed.pods) - len(lacking)),
        pods=tuple(
            PodExample(name=pod.pod, reason=pod.reason, message=pod.message[:1024]) for pod in lacking[:EXAMPLES]
        ),
    )


def _facts(observed: Observed, outcome: Outcome) -> list[Fact]:
    problem, target = outcome.problem, outcome.rollout.target
    if problem is not None:
        return _refused(problem, early=outcome.early, kept=outcome.rollout.current)
    if target is None:
        return [unknown("Ready", "Pending", "not looked at yet"), true("Reconciling", "Pending")]
    facts = [
        true("Resolved", "Pinned", f"{target.hub.repo} at commit {target.hub.commit}"),
        true("Compatible", "Servable", f"rank {target.rank}, modules {', '.join(target.target_modules)}"),
    ]
    if outcome.newer is not None:
        told = _not_taken(outcome.newer, target)
        facts = [told if fact.type == told.type else fact for fact in facts]
    return facts + _loaded(observed, outcome, target)


def _not_taken(newer: PassError, target: Entry) -> Fact:
    """Return what is told of a newer version that polling found, in the condition of the stage where it failed."""
    message = f"the newest version is not taken: {newer.message} Version {target.engine_name} goes on serving."
    if not isinstance(newer, NotServableError):
        return false("Resolved", newer.reason, message)
    return (unknown if newer.unknown else false)("Compatible", newer.reason, message)


def _refused(problem: PassError, *, early: bool, kept: Entry | None) -> list[Fact]:
    """Return the facts of a source or an engine that can't be had, at the stage where it failed."""
    serving = f" Version {kept.engine_name} goes on serving." if kept is not None else ""
    message = problem.message + serving
    facts = [false("Ready", problem.reason, message)]
    if isinstance(problem, NotServableError):
        facts.append(true("Resolved", "Pinned"))
        judged = unknown if problem.unknown else false
        facts.append(judged("Compatible", problem.reason, problem.message))
    elif not early:
        facts.append(false("Resolved", problem.reason, problem.message))
    if isinstance(problem, Blocked | NotServableError):
        facts.append(true("Stalled", problem.reason, message))
    else:
        facts.append(true("Reconciling", problem.reason, message))
    return facts


def _loaded(observed: Observed, outcome: Outcome, target: Entry) -> list[Fact]:
    pods = observed.pods
    if not pods:
        return _without_pods(starting=observed.starting)
    lacking = _lacking(pods, target)
    if not lacking:
        everywhere = f"{target.engine_name} answers on {len(pods)} of {len(pods)} Ready pods"
        return [true("Ready", "Loaded", everywhere), true("Loaded", "Loaded", everywhere)]
    reason, why = _why(lacking, pods)
    # Not by what Ready says: the next pass has to come to the same, or it would tell a turn that is none.
    if _answered_everywhere(observed, target) and len(lacking) < len(pods):
        reason = "PartlyLoaded"
    if _was_ready(observed, target) and outcome.gap is not None and outcome.gap < GAP:
        return [true("Ready", "Loaded", why), false("Loaded", reason, why), true("Reconciling", reason, why)]
    stalled = all(pod.final for pod in lacking)
    return [
        false("Ready", reason, why),
        false("Loaded", reason, why),
        true("Stalled" if stalled else "Reconciling", reason, why),
    ]


def _without_pods(*, starting: bool) -> list[Fact]:
    message = "the engine has no Ready pod: scale its Deployment up, or see why its pods are not Ready"
    if starting:
        message = "the engine has no Ready pod yet: wait for the one that is starting, or see why it is not Ready"
    facts = [false("Ready", "NoPods", message), false("Loaded", "NoPods", message)]
    return [*facts, true("Reconciling", "NoPods", message)] if starting else facts


def _why(lacking: tuple[Lacking, ...], pods: tuple[PodView, ...]) -> tuple[str, str]:
    """Return the reason that most of the lacking pods give, refusals first, and a sentence with one example."""
    ranked = Counter((pod.final, pod.reason) for pod in lacking)
    (_, reason), _ = max(ranked.items(), key=lambda item: (item[0][0], item[1], item[0][1]))
    example = next(pod for pod in lacking if pod.reason == reason)
    counts = f"{len(pods) - len(lacking)} of {len(pods)} Ready pods answer"
    return reason, f"{counts}; {example.pod}: {example.message or reason}"


def _lacking(pods: tuple[PodView, ...], target: Entry | None) -> tuple[Lacking, ...]:
    if target is None:
        return tuple(Lacking(pod=pod.name, reason="Pending", message="", final=False) for pod in pods)
    return tuple(_lack(pod, target) for pod in pods if not answers(pod, target.engine_name))


def _lack(pod: PodView, target: Entry) -> Lacking:
    if pod.silent or pod.entries is None:
        message = "its agent does not answer: see the container lora-agent of the pod"
        return Lacking(pod=pod.name, reason="AgentUnreachable", message=message, final=False)
    entry = pod.entries.get(target.engine_name)
    if entry is None:
        return Lacking(pod=pod.name, reason=UNDER_WAY, message="its agent has not been told yet", final=False)
    reason = entry.reason or UNDER_WAY
    return Lacking(pod=pod.name, reason=reason, message=entry.message, final=entry.state is State.FAILED)


def _answered_everywhere(observed: Observed, target: Entry) -> bool:
    current = observed.status.current
    return current is not None and current.engine_name == target.engine_name


def _was_ready(observed: Observed, target: Entry) -> bool:
    return _answered_everywhere(observed, target) and is_true(observed.status.conditions, "Ready")


def _version(entry: Entry | None) -> AdapterVersion | None:
    if entry is None:
        return None
    return AdapterVersion(
        revision=entry.hub.commit,
        digest=entry.digest,
        engine_name=entry.engine_name,
        rank=entry.rank,
        lora_alpha=entry.lora_alpha or None,
        target_modules=entry.target_modules,
        size_bytes=entry.size_bytes,
    )
