"""The LoRAAdapter pass: observe, resolve or keep the pin, say what is wanted, tell how far it is."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Final

from lora_operator.errors import PassError, Waiting
from lora_operator.labels import Key
from lora_operator.loop import retry_after, soonest
from lora_operator.lora_adapter.apply import add_finalizer, forget, remove_finalizer, say_left_behind, want
from lora_operator.lora_adapter.observe import observe
from lora_operator.lora_adapter.observed import Observed
from lora_operator.lora_adapter.plan import (
    Rollout,
    answers_everywhere,
    holding_pin,
    is_unheard,
    left_behind,
    next_poll,
    obstacle,
    presumed_poll,
    rollout,
)
from lora_operator.lora_adapter.resolve import origin_of, read_token, resolve
from lora_operator.lora_adapter.status import GAP, Outcome, status
from lora_operator.protocol.door import State
from lora_operator.protocol.manifest import Entry
from lora_operator.reporting import PATIENCE
from lora_operator.world import StandingRefusal, World

UNHEARD_RETRY: Final = 5.0
DELETING_RETRY: Final = 5.0
STARTING_PATIENCE: Final = 300.0
"""Seconds for which counts may be old while a pod starts: when it is Ready they are most often what they were, and a
restart of one pod has cost its 200 adapters no write."""
CREDENTIAL_STATES: Final = frozenset({"HubUnauthorized", "HubForbidden", "RepositoryNotFound"})


async def reconcile(key: Key, world: World) -> float | None:
    """Run one pass; return the seconds after which to run again, or None."""
    observed = await observe(key, world)
    if observed is None:
        forget(key, world)
        return None
    if observed.adapter.deleting:
        return await _leave(key, observed, world)
    if observed.suspended:
        return None
    await add_finalizer(observed, world)
    problem = obstacle(observed)
    early = problem is not None
    pinned = Pinned() if early else await _pin(key, observed, world)
    target, failed, again = pinned.target, pinned.failed, pinned.again
    todo = rollout(observed, target)
    want(key, todo.want, world)
    locked_out = None if early or failed else await _refresh_credentials(observed, todo.target, world)
    gap = _gap(key, observed, todo, world)
    problem = problem or failed or locked_out
    if problem is None and gap is None and _must_hear_first(observed, todo):
        return UNHEARD_RETRY
    outcome = Outcome(rollout=todo, problem=problem, early=early, gap=gap, newer=pinned.newer)
    patience = STARTING_PATIENCE if observed.starting else PATIENCE
    written = await world.reporter.report(observed.obj, status(observed, outcome), patience=patience)
    if pinned.news is not None:
        await world.recorder.say(observed.obj, "Warning", pinned.news.reason, pinned.news.message)
    return soonest(written, again, retry_after(outcome.problem), _gap_end(gap))


@dataclass(frozen=True, kw_only=True)
class Pinned:
    """What a pass knows of its source: the pin, or why there is none, and when to look again."""

    target: Entry | None = None
    failed: PassError | None = None
    newer: PassError | None = None
    """Why a newer version, which polling found, was not taken: the pin stands."""
    news: PassError | None = None
    """The same, where it was found just now."""
    again: float | None = None


async def _pin(key: Key, observed: Observed, world: World) -> Pinned:
    """Keep the pin, or resolve the source where it is time to. A refusal stands for a while unless asked anew."""
    pin = holding_pin(observed)
    if pin is not None and key not in world.resolved and (seen := presumed_poll(observed)) is not None:
        world.resolved[key] = seen
    poll = next_poll(observed, world.resolved.get(key))
    if pin is not None and poll != 0.0:
        return Pinned(target=pin, again=poll)
    asked = _asked(observed)
    refusal = world.refusals.get(key)
    if refusal is not None and refusal.asked == asked and refusal.until > observed.now:
        return _unresolved(pin, refusal.problem, again=(refusal.until - observed.now).total_seconds())
    try:
        resolved = await resolve(observed, world)
    except PassError as error:
        wait = retry_after(error) or 0.0
        if pin is not None and not isinstance(error, Waiting):  # the next look is the next poll
            wait = max(wait, next_poll(observed, observed.now) or 0.0)
        world.refusals[key] = StandingRefusal(asked=asked, problem=error, until=world.now() + timedelta(seconds=wait))
        found = _unresolved(pin, error, again=wait)
        return replace(found, news=found.newer)
    world.refusals.pop(key, None)
    world.resolved[key] = world.now()
    if pin is not None and pin.engine_name == resolved.engine_name:
        resolved = pin
    return Pinned(target=resolved, again=next_poll(observed, world.resolved[key]))


def _unresolved(pin: Entry | None, problem: PassError, *, again: float) -> Pinned:
    """Return what a source that can't be resolved comes to: a pin outlives it, and an outage is no news to a pin."""
    if pin is None:
        return Pinned(failed=problem, again=again)
    return Pinned(target=pin, newer=None if isinstance(problem, Waiting) else problem, again=again)


def _asked(observed: Observed) -> tuple[object, ...]:
    """Return what a refusal was an answer to: change any of it, and the source is looked at again."""
    engine, job = observed.engine, observed.job
    return (
        observed.adapter.metadata.uid,
        observed.adapter.metadata.generation,
        observed.adapter.requested_at,
        (engine.status.flags, engine.status.engine) if engine is not None and engine.status is not None else None,
        job.status.artifact if job is not None and job.status is not None else None,
    )


async def _refresh_credentials(observed: Observed, target: Entry | None, world: World) -> PassError | None:
    """Read the token's Secret again where an agent has none, or one that the Hub refuses: it may have been changed.

    Return why there is none to read: without it, that agent can't get on.
    """
    if target is None or target.hub.credential is None or not _is_locked_out(observed, target):
        return None
    before = world.credentials.get(target.hub.credential)
    try:
        await read_token(origin_of(observed), world)
    except PassError as problem:
        return problem
    if world.credentials.get(target.hub.credential) != before:
        world.wake(observed.adapter.engine_key)
    return None


def _is_locked_out(observed: Observed, target: Entry) -> bool:
    told = [entry for pod in observed.pods if (entry := (pod.entries or {}).get(target.engine_name)) is not None]
    return any(entry.state is State.WAITING_FOR_CREDENTIALS or entry.reason in CREDENTIAL_STATES for entry in told)


def _gap(key: Key, observed: Observed, todo: Rollout, world: World) -> timedelta | None:
    """Return for how long the version that serves has been missing on a Ready pod; None where it is not."""
    target = todo.target
    if target is None or not observed.pods or answers_everywhere(observed.pods, target.engine_name):
        world.gaps.pop(key, None)
        return None
    if is_unheard(observed.pods):
        return None
    return observed.now - world.gaps.setdefault(key, observed.now)


def _must_hear_first(observed: Observed, todo: Rollout) -> bool:
    """Tell whether to say nothing yet: an agent that was not heard since our start may well hold everything."""
    return todo.target is not None and is_unheard(observed.pods) and observed.status.current is not None


async def _leave(key: Key, observed: Observed, world: World) -> float | None:
    """Unload everywhere, then let go; at the latest when the time for it is over."""
    want(key, (), world)
    left = left_behind(observed, key) if observed.engine is not None else []
    since = observed.adapter.metadata.deletion_timestamp
    waited = (observed.now - since).total_seconds() if since is not None else 0.0
    bound = world.settings.cleanup_seconds
    if left and waited < bound:
        return min(DELETING_RETRY, bound - waited)
    if left:
        await say_left_behind(observed, left, world)
    await remove_finalizer(observed, world)
    return None


def _gap_end(gap: timedelta | None) -> float | None:
    return (GAP - gap).total_seconds() + 1 if gap is not None and gap < GAP else None
