"""Regexes that no automaton can be made of, run by Python's own `re`, as PEFT does, where that surely ends soon.

Looking behind, references, flags and the like. `re` tries one way through a regex after the other: how many there may
be is told by its text alone, as long as no loop stands in another.
"""

import math
import re
import warnings

from .regex_syntax import BrokenRegexError, EndlessRegexError, UnknownRegexError

_TEXT_LIMIT = 2048
# As many ways as PEFT is sure to end with, for one name of a base.
_LOOPS_LIMIT = 8
_CHOICES_LIMIT = 2**20
_GROUPS_LIMIT = 40
# Ways through all names; a second's worth for a regex that is made to be slow, a hundredth of that for others.
_WAYS_LIMIT = 50_000_000
# What is escaped or in a set means no choice; the rest of what may.
_SIGNS = re.compile(r"\\.|\[(?:\\.|[^\]])*\]|[*+}]\?|\(\??|[)|?]", re.DOTALL)


class Backtracking:
    """A regex that `re` runs, within a bound of its own for all the names it is asked about."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._loops, self._choices = sum(map(text.count, "*+{")), _choices(text)
        # A group that is repeated could hold another loop.
        if len(text) > _TEXT_LIMIT or text.count("(") > _GROUPS_LIMIT or re.search(r"\)[*+{]", text):
            raise EndlessRegexError("a loop over a group beside what only Python's re understands")
        if self._loops > _LOOPS_LIMIT or self._choices > _CHOICES_LIMIT:
            raise EndlessRegexError("many ways through it, beside what only Python's re understands")
        self._left = _WAYS_LIMIT
        self._known: dict[str, bool] = {}
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                self._compiled = re.compile(text)
        except (re.error, ValueError, OverflowError, RecursionError) as error:
            raise BrokenRegexError(str(error)) from error

    def __str__(self) -> str:
        """Return the regex as it was written."""
        return self._text

    def fullmatch(self, name: str) -> bool:
        """Tell what `re.fullmatch` tells of *name*; raises UnknownRegexError beyond the bound."""
        if name not in self._known:
            self._left -= (len(name) + 1) ** self._loops * self._choices
            if self._left < 0:
                raise UnknownRegexError("more ways through it than can be tried here")
            self._known[name] = self._compiled.fullmatch(name) is not None
        return self._known[name]


def _choices(text: str) -> int:
    """Return how many ways there are at most through the branches of *text*, and what may be left out of it."""
    ways, branches = 1, [1]
    for sign in _SIGNS.findall(text):
        match sign:
            case "(" | "(?":
                branches.append(1)
            case ")" if len(branches) > 1:
                ways *= branches.pop()
            case "|":
                branches[-1] += 1
            case "?":
                ways *= 2
            case _:
                pass
    return ways * math.prod(branches)
