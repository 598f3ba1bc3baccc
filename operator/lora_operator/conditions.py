"""Conditions: what a pass found, folded into what stood there before. Pure; the clock is passed in."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

from lora_operator.api.meta import Condition, ConditionStatus

MESSAGE_LIMIT = 2048


@dataclass(frozen=True, slots=True)
class Fact:
    """One condition as a pass finds it now."""

    type: str
    status: ConditionStatus
    reason: str
    message: str = ""


def true(kind: str, reason: str, message: str = "") -> Fact:
    """Return a condition that holds."""
    return Fact(kind, ConditionStatus.TRUE, reason, message)


def false(kind: str, reason: str, message: str = "") -> Fact:
    """Return a condition that does not hold."""
    return Fact(kind, ConditionStatus.FALSE, reason, message)


def unknown(kind: str, reason: str, message: str = "") -> Fact:
    """Return a condition that cannot be told."""
    return Fact(kind, ConditionStatus.UNKNOWN, reason, message)


def fold(
    before: Sequence[Condition], facts: Iterable[Fact], *, generation: int, now: datetime
) -> tuple[Condition, ...]:
    """Return the conditions after this pass: Ready first, then by type.

    A condition that no fact names is gone: negative ones exist only while they are true. The transition time moves
    when, and only when, the status does.
    """
    known = {condition.type: condition for condition in before}
    after = [_transition(known.get(fact.type), fact, generation=generation, now=now) for fact in facts]
    return tuple(sorted(after, key=lambda condition: (condition.type != "Ready", condition.type)))


def find(conditions: Iterable[Condition], kind: str) -> Condition | None:
    """Return the condition of a type."""
    return next((condition for condition in conditions if condition.type == kind), None)


def is_true(conditions: Iterable[Condition], kind: str) -> bool:
    """Tell whether a condition is there and true."""
    condition = find(conditions, kind)
    return condition is not None and condition.status is ConditionStatus.TRUE


def _transition(known: Condition | None, fact: Fact, *, generation: int, now: datetime) -> Condition:
    stays = known is not None and known.status is fact.status
    return Condition(
        type=fact.type,
        status=fact.status,
        observed_generation=generation,
        last_transition_time=known.last_transition_time if known is not None and stays else now,
        reason=fact.reason,
        message=fact.message[:MESSAGE_LIMIT],
    )
