"""When library, engine and PEFT agree about an adapter. Pure.

Right is what the engine loads, answers as PEFT does, and what leaves everybody else's answers alone. The library has
to call servable what is right, and nothing else.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

# What float32 makes of the same sums in another order; a wrong adapter is off by far more.
TOLERANCE = 0.002


@dataclass(frozen=True, slots=True)
class Spoken:
    """A greedy continuation: its tokens, with the log-probability of each. *trouble* is why there is none."""

    tokens: tuple[int, ...]
    logprobs: tuple[float, ...]
    trouble: str = ""

    def equals(self, other: Spoken) -> bool:
        """Tell whether both are the same answer; one that is not finite is like no other."""
        # Texts may end in half a character, which each program shows in its own way.
        return (
            bool(self.tokens)
            and self.tokens == other.tokens
            and all(
                math.isfinite(mine) and abs(mine - theirs) <= TOLERANCE
                for mine, theirs in zip(self.logprobs, other.logprobs, strict=True)
            )
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What a real program made of an adapter.

    *refused* is its sentence, *harm* what it did to others, *dropped* the tensors that it left out (PEFT says which).
    """

    refused: str | None = None
    answers: tuple[Spoken, ...] = ()
    harm: str | None = None
    dropped: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Ruling:
    """One adapter's case, decided."""

    case: str
    content: str
    servable: bool
    codes: tuple[str, ...]
    engine: Outcome
    peft: Outcome
    why: str = ""
    """Why the library refuses, on purpose, what the engine answers rightly."""

    @property
    def is_right(self) -> bool:
        """Whether the engine, asked for real, serves it rightly."""
        return self.said == "as PEFT"

    @property
    def agrees(self) -> bool:
        """Whether the library said so, or refuses it for a reason of its own that the corpus gives."""
        return self.servable == self.is_right or (self.is_right and bool(self.why))

    @property
    def said(self) -> str:
        """How the engine took it, in words for the table."""
        if self.engine.harm is not None:
            return self.engine.harm
        if self.engine.refused is not None:
            return "refused"
        if self.peft.refused is not None:
            return "answers; PEFT refuses"
        if not equal(self.engine.answers, self.peft.answers):
            return "otherwise than PEFT"
        # Both answer without a part of what was trained.
        return "as PEFT, which drops tensors" if self.peft.dropped else "as PEFT"

    def __str__(self) -> str:
        verdict = "servable" if self.servable else f"refused ({', '.join(self.codes)})"
        return (
            f"{self.case}: the library says {verdict}, vLLM: {self.said}\n"
            f"  vLLM: {self.engine.refused or self.engine.answers}\n  PEFT: {self.peft.refused or self.peft.answers}"
        )


def equal(mine: Sequence[Spoken], theirs: Sequence[Spoken]) -> bool:
    """Tell whether all answers are the same."""
    return bool(mine) and len(mine) == len(theirs) and all(a.equals(b) for a, b in zip(mine, theirs, strict=True))
