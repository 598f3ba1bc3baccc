"""What the LoRATrainingJob pass tells: conditions, progress, what was resolved and what was published. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from lora_operator.api.lora_training_job import Artifact, JobStatus, Metric, Resolved, TrainerStatus
from lora_operator.api.meta import LocalRef
from lora_operator.conditions import Fact, false, fold, true, unknown
from lora_operator.errors import Blocked, PassError
from lora_operator.lora_training_job.observed import Observed
from lora_operator.lora_training_job.plan import Stage, Standing, preempted_pods, preemptions

Object = dict[str, Any]

METRICS: int = 32
TEXT: int = 128
LARGEST: int = 1 << 53


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What a pass has come to."""

    standing: Standing
    problem: PassError | None = None
    """What stands in the way of the next step."""
    run: Object | None = None
    """The Job, where there is one."""
    resolved: Resolved | None = None
    adapter: str | None = None
    """The LoRAAdapter that serves the result."""


def status(observed: Observed, outcome: Outcome) -> JobStatus:
    """Return the status after this pass."""
    before, stage = observed.status, outcome.standing.stage
    over = stage is Stage.FAILED or (stage is Stage.PUBLISHED and outcome.problem is None)
    generation = observed.job.metadata.generation
    return JobStatus(
        observed_generation=generation,
        conditions=fold(before.conditions, _facts(outcome), generation=generation, now=observed.now),
        start_time=before.start_time or _started(outcome.run),
        completion_time=before.completion_time or (observed.now if over else None),
        attempts=_attempts(observed, outcome.run),
        preemptions=preemptions(observed) or None,
        preempted_pods=preempted_pods(observed),
        resumes=_resumes(observed),
        checkpoint_step=_checkpoint_step(observed),
        peak_memory_bytes=_peak_memory(observed, outcome.standing),
        trainer_status=_trainer_status(observed, outcome.standing),
        resolved=outcome.resolved or before.resolved,
        artifact=_artifact(outcome.standing) or before.artifact,
        adapter_ref=LocalRef(name=outcome.adapter) if outcome.adapter is not None else before.adapter_ref,
        job_ref=LocalRef(name=outcome.run["metadata"]["name"]) if outcome.run is not None else before.job_ref,
    )


def status_of_the_end(observed: Observed) -> JobStatus:
    """Return the status of a run that is over: as it stands, now of this generation of the spec."""
    generation = observed.job.metadata.generation
    conditions = tuple(
        condition.model_copy(update={"observed_generation": generation}) for condition in observed.status.conditions
    )
    return observed.status.model_copy(update={"observed_generation": generation, "conditions": conditions})


def _facts(outcome: Outcome) -> list[Fact]:
    match outcome.standing.stage:
        case Stage.CHECKING:
            return _checking(outcome)
        case Stage.FAILED:
            return _failed(outcome.standing)
        case Stage.PUBLISHED:
            return _published(outcome)
        case Stage.RUNNING | Stage.SUSPENDED:
            return _running(outcome)


def _checking(outcome: Outcome) -> list[Fact]:
    problem = outcome.problem
    if problem is None:
        pending = true("Reconciling", "Checking")
        return [*_not_yet("Checking"), unknown("Validated", "Checking"), pending]
    validated = false if isinstance(problem, Blocked) else unknown
    facts = _not_yet(problem.reason, problem.message)
    return [*facts, validated("Validated", problem.reason, problem.message), _hold(problem)]


def _running(outcome: Outcome) -> list[Fact]:
    standing, problem = outcome.standing, outcome.problem
    accepted = true("Validated", "Accepted")
    if problem is not None:
        return [*_not_yet(problem.reason, problem.message), accepted, _hold(problem)]
    kind = "Suspended" if standing.stage is Stage.SUSPENDED else "Reconciling"
    return [
        *_not_yet(standing.reason, standing.message),
        accepted,
        true(kind, standing.reason, standing.message),
    ]


def _failed(standing: Standing) -> list[Fact]:
    reason, message = standing.reason, standing.message
    return [
        false("Ready", reason, message),
        true("Validated", "Accepted"),
        false("Trained", reason),
        false("Published", reason),
        false("Complete", reason),
        true("Failed", reason, message),
        true("Stalled", reason, message),
    ]


def _published(outcome: Outcome) -> list[Fact]:
    standing, problem, artifact = outcome.standing, outcome.problem, outcome.standing.artifact
    place = f"{artifact.repo} at commit {artifact.commit}" if artifact is not None else ""
    facts = [
        true("Validated", "Accepted"),
        true("Trained", "Trained", standing.message),
        true("Published", "Published", place),
    ]
    if problem is not None:
        failed = false("Failed", problem.reason)
        return [*facts, false("Ready", problem.reason, problem.message), _incomplete(problem), failed, _hold(problem)]
    served = f"{place}, for LoRAAdapter {outcome.adapter}" if outcome.adapter is not None else place
    return [
        *facts,
        true("Ready", "Published", served),
        true("Complete", "Published", served),
        false("Failed", "Published"),
    ]


def _incomplete(problem: PassError) -> Fact:
    return false("Complete", problem.reason, problem.message)


def _not_yet(reason: str, message: str = "") -> list[Fact]:
    """Return the conditions of what is still to come; the message stands on the summary alone."""
    later = [false(kind, reason) for kind in ("Trained", "Published", "Complete", "Failed")]
    return [false("Ready", reason, message), *later]


def _hold(problem: PassError) -> Fact:
    kind = "Stalled" if isinstance(problem, Blocked) else "Reconciling"
    return true(kind, problem.reason, problem.message)


def _started(run: Object | None) -> datetime | None:
    text = ((run or {}).get("status") or {}).get("startTime")
    return _moment(text) if text else None


def _attempts(observed: Observed, run: Object | None) -> int | None:
    """Return how many attempts there were: what the Job counts, and pods that it does not count; never fewer."""
    counts = (run or {}).get("status") or {}
    counted = sum(int(counts.get(name) or 0) for name in ("active", "succeeded", "failed"))
    return max(observed.status.attempts or 0, counted, len(observed.attempts)) or None


def _resumes(observed: Observed) -> int | None:
    """Return how many attempts went on from a checkpoint: by their own word, or by that of the one before."""
    results = [one.ended.result if one.ended is not None else None for one in observed.attempts]
    left = [False, *(result is not None and result.checkpoint_step is not None for result in results)]
    own = [result is not None and result.resumed_from_step is not None for result in results]
    return max(observed.status.resumes or 0, sum(map(any, zip(left, own, strict=False)))) or None


def _checkpoint_step(observed: Observed) -> int | None:
    told = [one.ended.result.checkpoint_step for one in observed.attempts if one.ended and one.ended.result]
    counts = [count for step in told if (count := _count(str(step))) is not None]
    return max([*counts, observed.status.checkpoint_step or 0]) or None


def _peak_memory(observed: Observed, standing: Standing) -> int | None:
    """Return the most memory that any report told of, and the result."""
    said = {metric.name: metric.value for metric in observed.reported.metrics} if observed.reported else {}
    result = standing.result.metrics if standing.result else {}
    told = _amount(said.get("memory_peak_bytes", "")), _amount(result.get("peak_memory_bytes", ""))
    return max(*told, observed.status.peak_memory_bytes or 0) or None


def _amount(text: str) -> int:
    """Return an amount of bytes; 0 where it is none."""
    try:
        amount = float(text)
    except ValueError:
        return 0
    return int(amount) if 0 <= amount <= LARGEST else 0


def _artifact(standing: Standing) -> Artifact | None:
    found = standing.artifact
    if found is None:
        return None
    return Artifact(
        repo=found.repo,
        commit=found.commit,
        digest=found.digest,
        size_bytes=found.size_bytes,
        servable=found.servable,
        tag=found.tag[:TEXT] if found.tag is not None else None,
    )


def _trainer_status(observed: Observed, standing: Standing) -> TrainerStatus | None:
    """Return how far the trainer is: by its result once there is one, so that a lost report changes nothing."""
    before = observed.status.trainer_status
    result = standing.result
    if standing.stage is Stage.PUBLISHED:
        if result is None:
            return before
        return TrainerStatus(
            progress_percentage=100,
            estimated_remaining_seconds=0,
            current_step=_count(str(result.steps)),
            max_steps=_count(str(result.steps)),
            metrics=_metrics(result.metrics),
            last_updated_time=before.last_updated_time if before is not None else None,
        )
    said = observed.reported
    if said is None:
        return before
    metrics = {metric.name: metric.value for metric in said.metrics}
    return TrainerStatus(
        progress_percentage=said.progress_percentage,
        estimated_remaining_seconds=_count(str(said.estimated_remaining_seconds)),
        current_step=_count(metrics.get("current_step")),
        max_steps=_count(metrics.get("total_steps")),
        metrics=_metrics(metrics),
        last_updated_time=_moment(said.last_updated_time),
    )


def _metrics(metrics: dict[str, str]) -> tuple[Metric, ...]:
    """Return metrics within the bounds of the kind: a trainer may say anything."""
    short = {name[:TEXT]: value[:TEXT] for name, value in metrics.items()}
    return tuple(Metric(name=name, value=value) for name, value in list(short.items())[:METRICS])


def _count(text: str | None) -> int | None:
    return int(text) if text is not None and text.isascii() and text.isdigit() and len(text) <= 9 else None


def _moment(text: str) -> datetime | None:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    return moment if moment.tzinfo is not None else None
