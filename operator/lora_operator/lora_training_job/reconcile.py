"""The LoRATrainingJob pass: observe, check before a GPU is asked for, train, read the result, tell how far it is.

There is no finaliser: nothing that is to be taken back lies outside of the cluster. The Job, its pods and the
ConfigMap go by their owner; what was published, and the LoRAAdapter that serves it, are meant to stay.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Final

from lora_operator.api.lora_training_job import Resolved
from lora_operator.errors import Blocked, PassError, Waiting
from lora_operator.labels import Key
from lora_operator.loop import retry_after, soonest
from lora_operator.lora_training_job import apply, manifests
from lora_operator.lora_training_job.observe import observe, thaw
from lora_operator.lora_training_job.observed import Frozen, Observed
from lora_operator.lora_training_job.plan import (
    CHECKING,
    Stage,
    Standing,
    is_over,
    mistimed,
    standing,
    time_left,
)
from lora_operator.lora_training_job.preflight import check
from lora_operator.lora_training_job.read_back import published_before
from lora_operator.lora_training_job.status import Outcome, status, status_of_the_end
from lora_operator.protocol.training import Artifact
from lora_operator.world import StandingRefusal, World

PATIENCE: Final = 10.0
"""Seconds between two writes of progress alone: somebody may be looking at a bar."""


async def reconcile(key: Key, world: World) -> float | None:
    """Run one pass; return the seconds after which to run again, or None."""
    observed = await observe(key, world)
    if observed is None:
        apply.forget(key, world)
        return None
    if observed.job.deleting or observed.suspended:
        return None
    if is_over(observed):
        return await _after_the_end(observed, world)
    outcome = await _advance(key, observed, world)
    written = await world.reporter.report(observed.obj, status(observed, outcome), patience=PATIENCE)
    return soonest(written, retry_after(outcome.problem))


async def _advance(key: Key, observed: Observed, world: World) -> Outcome:
    """Take every step that can be taken now, and say how the training stands after them."""
    found = await _standing(key, observed, world)
    if found.standing.stage is not Stage.PUBLISHED or found.problem is not None:
        return found
    artifact, name = found.standing.artifact, manifests.adapter_name(observed.job)
    # Once it was made it is the user's: one that was deleted since is not wanted any more.
    if artifact is None or name is None or observed.status.adapter_ref is not None:
        return found
    try:
        await apply.serve(observed, artifact.commit, world)
    except PassError as problem:
        return replace(found, problem=problem)
    return replace(found, adapter=name)


async def _standing(key: Key, observed: Observed, world: World) -> Outcome:
    """Return how the training stands, started where it was not."""
    pin, run = observed.status.artifact, observed.run
    if pin is not None:
        artifact = Artifact(**pin.model_dump())
        return Outcome(standing=Standing(stage=Stage.PUBLISHED, reason="Published", artifact=artifact), run=run)
    if run is None or mistimed(observed):
        return await _start(key, observed, world)
    stands = standing(observed, run)
    outcome = Outcome(standing=stands, run=run, resolved=await _resolved(observed, world))
    return await _read_back(outcome, observed, world) if stands.unsure else outcome


async def _start(key: Key, observed: Observed, world: World) -> Outcome:
    """Check and freeze what was not yet, and make the Job; or give the Job that is there its new timing."""
    if observed.run is None and observed.status.job_ref is not None:
        # Somebody deleted the Job. Its trainer may have published before that: look, and only then train again.
        earlier = await _read_back(Outcome(standing=CHECKING), observed, world)
        if earlier.standing.stage is Stage.PUBLISHED or earlier.problem is not None:
            return earlier
    frozen = await thaw(observed, world)
    if frozen is None:
        try:
            frozen = await _check_and_freeze(key, observed, world)
        except PassError as problem:
            return Outcome(standing=CHECKING, problem=problem, run=observed.run)
    try:
        run = await apply.run(frozen, observed, world)
    except Blocked as problem:
        refused = Standing(stage=Stage.RUNNING, reason=problem.reason)
        return Outcome(standing=refused, problem=problem, run=observed.run, resolved=frozen.resolved)
    return Outcome(standing=standing(observed, run), run=run, resolved=frozen.resolved)


async def _check_and_freeze(key: Key, observed: Observed, world: World) -> Frozen:
    """Run the pre-flight. A refusal stands for a while, unless what it was an answer to has changed."""
    asked = _asked(observed)
    refusal = world.refusals.get(key)
    if refusal is not None and refusal.asked == asked and refusal.until > observed.now:
        raise refusal.problem
    try:
        pins = await check(observed, world)
    except PassError as problem:
        until = world.now() + timedelta(seconds=retry_after(problem) or 0)
        world.refusals[key] = StandingRefusal(asked=asked, problem=problem, until=until)
        raise
    world.refusals.pop(key, None)
    return await apply.freeze(observed, pins, world)


def _asked(observed: Observed) -> tuple[object, ...]:
    job, engine = observed.job, observed.engine
    seen = engine.status if engine is not None else None
    adopted = tuple((one.type, one.status) for one in seen.conditions if one.type == "Adopted") if seen else ()
    flags = (seen.base_model, seen.flags, seen.engine) if seen else ()
    return (
        job.metadata.uid,
        job.metadata.generation,
        job.requested_at,
        observed.allowed,
        engine is None,
        adopted,
        flags,
    )


async def _resolved(observed: Observed, world: World) -> Resolved | None:
    """Return what was resolved, where the status does not have it yet: a kill came between the Job and the status."""
    if observed.status.resolved is not None:
        return None
    frozen = await thaw(observed, world)
    return frozen.resolved if frozen is not None else None


async def _read_back(outcome: Outcome, observed: Observed, world: World) -> Outcome:
    """Ask the Hub whether this very job has published after all."""
    try:
        found = await published_before(observed, world)
    except Waiting as problem:
        # No end is claimed that the Hub may yet deny.
        return replace(outcome, standing=replace(outcome.standing, stage=Stage.RUNNING), problem=problem)
    except Blocked as problem:
        if not outcome.standing.went_well:
            return outcome  # no repository, no access: what failed has not published there either
        lost = f"the trainer ended well, but its result went with its pod, and the Hub does not tell: {problem.message}"
        unread = Blocked(problem.reason, lost)
        return replace(outcome, standing=replace(outcome.standing, stage=Stage.RUNNING), problem=unread)
    return replace(outcome, standing=found) if found is not None else outcome


async def _after_the_end(observed: Observed, world: World) -> float | None:
    """Keep the object for its time. The run is over: whatever becomes of its Job or its LoRAAdapter is not ours."""
    left = time_left(observed)
    if left is not None and left <= timedelta():
        await apply.remove(observed, world)
        return None
    written = await world.reporter.report(observed.obj, status_of_the_end(observed), patience=PATIENCE)
    return soonest(written, left.total_seconds() if left is not None else None)
