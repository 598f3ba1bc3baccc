"""What the LoRATrainingJob pass decides: what forbids training, how the training stands, when it is over. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from typing import Final

from lora_operator import engine_terms
from lora_operator.api.lora_training_job import PREEMPTED_PODS
from lora_operator.conditions import is_true
from lora_operator.errors import PassError
from lora_operator.lora_training_job.attempts import Attempt
from lora_operator.lora_training_job.observed import Object, Observed
from lora_operator.protocol.training import Artifact, Reason, Result


class Stage(StrEnum):
    """How far a training is."""

    CHECKING = "Checking"
    RUNNING = "Running"
    SUSPENDED = "Suspended"
    FAILED = "Failed"
    PUBLISHED = "Published"


@dataclass(frozen=True, kw_only=True)
class Standing:
    """How the training stands, with a condition's reason and a sentence for people."""

    stage: Stage
    reason: str
    message: str = ""
    artifact: Artifact | None = None
    result: Result | None = None
    unsure: bool = False
    """It failed by all that the cluster knows, yet may have published: the Hub knows better."""
    went_well: bool = False
    """Its trainer ended as one does that has published: only the Hub can tell what."""


_COMMIT: Final = re.compile(r"[0-9a-f]{40}")
_DIGEST: Final = re.compile(r"sha256:[0-9a-f]{64}")
_LARGEST: Final = 1 << 50

CHECKING = Standing(stage=Stage.CHECKING, reason="Checking")


def obstacle(observed: Observed) -> PassError | None:
    """Return what the engine has against the training, or None."""
    job, engine, name = observed.job, observed.engine, observed.job.engine_key
    if name is None:
        return None
    return engine_terms.obstacle(
        engine,
        name=name,
        allowed=observed.allowed,
        namespace=job.metadata.namespace,
        base=job.spec.base_model.name,
        base_field="spec.baseModel.name",
    )


def is_over(observed: Observed) -> bool:
    """Tell whether the one run that this object is has ended, well or badly: nothing of it changes any more."""
    conditions = observed.status.conditions
    return is_true(conditions, "Complete") or is_true(conditions, "Failed")


def time_left(observed: Observed) -> timedelta | None:
    """Return for how long an object whose run is over is still to be kept; None: for ever."""
    ttl, end = observed.job.spec.ttl_seconds_after_finished, observed.status.completion_time
    return None if ttl is None or end is None else end + timedelta(seconds=ttl) - observed.now


def preempted_pods(observed: Observed) -> tuple[str, ...]:
    """Return the pods, of those that are there, that the cluster took back; suspending a job is no preemption."""
    ended = [one.pod for one in observed.attempts if one.ended is not None and one.ended.disrupted]
    if observed.job.spec.suspend or (observed.run or {}).get("spec", {}).get("suspend"):
        ended = [pod for pod in ended if pod in observed.status.preempted_pods]
    return tuple(ended[:PREEMPTED_PODS])


def preemptions(observed: Observed) -> int:
    """Return how many preemptions there were: pods of those that were counted may be gone."""
    before = observed.status
    return (before.preemptions or 0) + len(set(preempted_pods(observed)) - set(before.preempted_pods))


def timing(observed: Observed) -> Object:
    """Return the fields of the Job that may change: what the spec says now, and no attempt more than can help."""
    spec = observed.job.spec
    fields: Object = {"suspend": spec.suspend}
    if spec.active_deadline_seconds is not None:
        fields["activeDeadlineSeconds"] = spec.active_deadline_seconds
    if _is_hopeless(observed):
        fields["backoffLimit"] = 0
    if _is_spent(observed):
        fields["activeDeadlineSeconds"] = 1
    return fields


def mistimed(observed: Observed) -> bool:
    """Tell whether a Job that is there runs, or may run for another time, than it should."""
    run = observed.run
    if run is None or run_condition(run, "Complete") or run_condition(run, "Failed"):
        return False
    wanted, given = timing(observed), run["spec"]
    unlimited = "activeDeadlineSeconds" in given and "activeDeadlineSeconds" not in wanted
    return unlimited or any((given.get(name) or False) != value for name, value in wanted.items())


def _is_hopeless(observed: Observed) -> bool:
    """Tell whether the newest attempt ended in a way in which the next one would end too, though the Job can't know."""
    last = observed.attempts[-1] if observed.attempts else None
    return last is not None and last.ended is not None and last.ended.hopeless


def _is_spent(observed: Observed) -> bool:
    """Tell whether the cluster took back more pods than the spec puts up with, which the Job does not count."""
    limit = observed.job.spec.max_preemptions
    return limit is not None and preemptions(observed) > limit


def run_condition(run: Object, kind: str) -> Object | None:
    """Return a condition of the Job where it is true."""
    conditions = (run.get("status") or {}).get("conditions") or []
    return next((one for one in conditions if one["type"] == kind and one["status"] == "True"), None)


def standing(observed: Observed, run: Object) -> Standing:
    """Return how the training stands by its Job and pods."""
    for one in observed.attempts:
        result = one.ended.result if one.ended is not None else None
        if result is not None and (artifact := published(result, observed.job.spec.output.hub.repo)) is not None:
            return Standing(
                stage=Stage.PUBLISHED, reason="Published", message=result.message, artifact=artifact, result=result
            )
    if run_condition(run, "Complete"):
        message = "the Job completed, but its pod left no result and the Hub has no commit of this job"
        return Standing(stage=Stage.FAILED, reason="ResultLost", message=message, unsure=True, went_well=True)
    if (failed := run_condition(run, "Failed")) is not None:
        return _failure(observed, failed)
    if run["spec"].get("suspend"):
        return Standing(
            stage=Stage.SUSPENDED, reason="Suspended", message="spec.suspend is true: set it to false to train"
        )
    return _progress(observed.attempts, run["metadata"]["name"])


def published(result: Result, repo: str) -> Artifact | None:
    """Return what a result says was published in the repository that it was to be.

    A trainer's pod is its tenant's, and may say anything: what can't be so is taken for nothing.
    """
    artifact = result.artifact
    if result.reason is not Reason.PUBLISHED or artifact is None or artifact.repo != repo:
        return None
    sound = _COMMIT.fullmatch(artifact.commit) and _DIGEST.fullmatch(artifact.digest)
    return artifact if sound and 0 <= artifact.size_bytes <= _LARGEST else None


def _failure(observed: Observed, failed: Object) -> Standing:
    if _is_spent(observed):
        message = (
            f"the cluster took the trainer's pod back {preemptions(observed)} times, which is more than"
            " spec.maxPreemptions: raise it, or give the job another priorityClassName or other nodes"
        )
        return Standing(stage=Stage.FAILED, reason="PreemptedTooOften", message=message, unsure=True)
    if failed.get("reason") == "DeadlineExceeded":
        seconds = observed.job.spec.active_deadline_seconds
        message = f"not done within spec.activeDeadlineSeconds ({seconds} s), all attempts together: raise it"
        return Standing(stage=Stage.FAILED, reason="DeadlineExceeded", message=message, unsure=True)
    ends = [one.ended for one in observed.attempts if one.ended is not None]
    if not ends:
        message = f"the Job failed ({failed.get('reason')}: {failed.get('message')}) and its pods are gone"
        return Standing(stage=Stage.FAILED, reason=Reason.TRAINING_FAILED.value, message=message, unsure=True)
    last = next((end for end in reversed(ends) if not end.disrupted), ends[-1])
    limited = failed.get("reason") == "BackoffLimitExceeded" and not last.hopeless
    tries = f" (attempt {len(ends)}, the last)" if limited else ""
    # Killed, or out of patience, after the commit was made and before it could be told.
    unsure = last.result is None or last.result.reason in {Reason.HUB_UNAVAILABLE, Reason.PREEMPTED}
    message = f"{last.message}{tries}"
    return Standing(stage=Stage.FAILED, reason=last.reason, message=message, result=last.result, unsure=unsure)


def _progress(attempts: tuple[Attempt, ...], run: str) -> Standing:
    active = next((one for one in reversed(attempts) if one.ended is None), None)
    if active is None:
        last = attempts[-1].ended if attempts else None
        if last is not None:
            message = f"the last attempt ended ({last.reason}: {last.message}); trying again"
            return Standing(stage=Stage.RUNNING, reason="Retrying", message=message)
        message = f"Job {run} has no pod yet; if that lasts, `kubectl describe job {run}` tells why"
        return Standing(stage=Stage.RUNNING, reason="Starting", message=message)
    if active.hindrance is not None:
        reason, message = active.hindrance
        return Standing(stage=Stage.RUNNING, reason=reason, message=message)
    if active.running:
        return Standing(stage=Stage.RUNNING, reason="Training", message=f"pod {active.pod} is training")
    return Standing(stage=Stage.RUNNING, reason="Starting", message=f"pod {active.pod} is starting")
