"""What a pass may raise, by meaning: the type decides what happens next, never the text.

    PassError
    ├── Waiting   normal: something else has to happen first; looked at again after `after` seconds
    └── Blocked   the user must act; no fast retry, the object is Stalled

Anything else that a pass raises is retried with jittered back-off and counted as an error. The raiser names the
reason, for it is the one who knows.
"""

from __future__ import annotations


class PassError(Exception):
    """A pass that ended early: `reason` is a condition's reason, `message` a sentence for a person."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(f"{reason}: {message}")
        self.reason = reason
        self.message = message


class Waiting(PassError):  # noqa: N818 - a meaning, not a mistake
    """Not yet. Not a failure; looked at again after `after` seconds, or when something wakes the key."""

    def __init__(self, reason: str, message: str, *, after: float = 10.0) -> None:
        super().__init__(reason, message)
        self.after = after


class Blocked(PassError):  # noqa: N818 - a meaning, not a mistake
    """Not until somebody changes something: the message names the field and what to change."""


class FieldConflictError(Exception):
    """Server-side apply without force met fields of another manager. `details` names managers and fields."""

    def __init__(self, details: str) -> None:
        super().__init__(details)
        self.details = details


class ChangedError(Exception):
    """The object of a write is gone, or not the one that the pass had read: the pass starts over."""
