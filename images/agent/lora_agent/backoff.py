"""Why the last attempt at an entry did not work, and when the next is due. Pure: back-off without a clock.

A setback says how it ends: by itself soon (TRANSIENT), when somebody changes something (REFUSED), or hardly ever,
for content does not change under its digest (CONTENT).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final


class Step(StrEnum):
    """What was tried."""

    FETCH = "Fetch"
    LOAD = "Load"
    PROBE = "Probe"


class Ends(StrEnum):
    """What it takes to get over it."""

    TRANSIENT = "Transient"
    REFUSED = "Refused"
    CONTENT = "Content"


_FIRST_SECONDS: Final = {Ends.TRANSIENT: 1.0, Ends.REFUSED: 30.0, Ends.CONTENT: 300.0}
_LAST_SECONDS: Final = {Ends.TRANSIENT: 60.0, Ends.REFUSED: 600.0, Ends.CONTENT: 3600.0}
MESSAGE_LIMIT: Final = 1024


class Trouble(Exception):  # noqa: N818 - what a step says when it could not be done
    """A step could not be done; carries what the report will say."""

    def __init__(self, reason: str, message: str, *, ends: Ends, at_least_seconds: float = 0.0) -> None:
        super().__init__(f"{reason}: {message}")
        self.reason = reason
        self.message = message
        self.ends = ends
        self.at_least_seconds = at_least_seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class Setback:
    """One entry's last failed attempt."""

    step: Step
    reason: str
    message: str
    ends: Ends
    failures: int
    retry_seconds: float
    due: float

    @property
    def final(self) -> bool:
        """Nothing gets better by waiting: the entry has settled, as failed."""
        return self.ends is not Ends.TRANSIENT


def after(previous: Setback | None, trouble: Trouble, *, step: Step, now: float, jitter: float) -> Setback:
    """Return the setback after one more failure: the wait doubles up to its bound; `jitter` is in [0, 1)."""
    failures = previous.failures + 1 if previous and previous.step is step else 1
    wait = min(_FIRST_SECONDS[trouble.ends] * 2 ** min(failures - 1, 16), _LAST_SECONDS[trouble.ends])
    seconds = max(wait * (0.75 + jitter / 2), trouble.at_least_seconds)
    return Setback(
        step=step,
        reason=trouble.reason,
        message=trouble.message[:MESSAGE_LIMIT],
        ends=trouble.ends,
        failures=failures,
        retry_seconds=round(seconds, 1),
        due=now + seconds,
    )
