"""The regexes of a stranger, run in time that has a bound: an automaton in the place of `re`'s backtracking."""

from dataclasses import dataclass, field

from .regex_syntax import WORD, Chars, Either, EndlessRegexError, Loop, Node, Place, Then, mask_of, parse

_PATTERN_LIMIT = 8192
_STATES_LIMIT = 4096
STEPS_LIMIT = 2_000_000
# What a step that is remembered counts for: they take memory, of which some 150 MB may be filled.
_REMEMBERED = 8
_END = ""


@dataclass(slots=True)
class Budget:
    """How many steps regexes may take together, to be built and to be asked: some half a second's worth."""

    left: int = STEPS_LIMIT

    def spend(self, steps: int) -> None:
        """Take *steps* away; raises EndlessRegexError where no more are left."""
        self.left -= steps
        if self.left < 0:
            raise EndlessRegexError(f"more than {STEPS_LIMIT} steps, with the others")


class Regex:
    """A regex that is safe to ask; raises RegexError where it can't be one, or its *budget* is spent."""

    def __init__(self, text: str, budget: Budget | None = None) -> None:
        budget = budget or Budget()
        if len(text) > _PATTERN_LIMIT:
            raise EndlessRegexError(f"{len(text)} characters, more than {_PATTERN_LIMIT}")
        self._text = text
        tree = parse(text)
        self._automaton = _Automaton(tree.node, budget)
        self._ahead = [(negative, _Automaton(node, budget)) for negative, node in tree.ahead]

    def __str__(self) -> str:
        """Return the regex as it was written."""
        return self._text

    def fullmatch(self, name: str) -> bool:
        """Tell what `re.fullmatch` tells of *name*, printable ASCII; raises EndlessRegexError beyond its bound."""
        return self._matches(name, whole=True)

    def match(self, name: str) -> bool:
        """Tell what `re.match` tells of *name*, for which the start of it is enough."""
        return self._matches(name, whole=False)

    def _matches(self, name: str, *, whole: bool) -> bool:
        for negative, condition in self._ahead:
            if condition.matches(name, whole=False) is negative:
                return False
        return self._automaton.matches(name, whole=whole)


@dataclass(slots=True)
class _State:
    """Where it may go: over a character of a set, or without one (only at a *place*, where there is one)."""

    over: list[tuple[int, int]] = field(default_factory=list)
    free: list[tuple[str, int]] = field(default_factory=list)


@dataclass(slots=True, eq=False)
class _Row:
    """Many states at once, after a character of the kind *before*; for each character that was met, what it does.

    That is: whether the end is reached before the character, and the row after it, None where nothing leads on.
    """

    states: frozenset[int]
    before: str
    known: dict[str, tuple[bool, "_Row | None"]] = field(default_factory=dict)


class _Automaton:
    """Thompson's: in many states at once. It remembers each step, so that most names cost a look-up a character."""

    def __init__(self, node: Node, budget: Budget) -> None:
        self._budget = budget
        self._states: list[_State] = [_State()]
        self._last = self._build(node, 0)
        self._rows: dict[tuple[frozenset[int], str], _Row] = {}
        self._first = self._row(frozenset({0}), "^")

    def matches(self, name: str, *, whole: bool) -> bool:
        """Tell whether it leads through *name*, all of it or any part from its start."""
        row = self._first
        for character in name:
            is_end, following = row.known.get(character) or self._step(row, character)
            if is_end and not whole:
                return True
            if following is None:
                return False
            row = following
        return (row.known.get(_END) or self._step(row, _END))[0]

    def _step(self, row: _Row, character: str) -> tuple[bool, _Row | None]:
        reached = self._follow(row.states, row.before, character)
        bit = 1 << ord(character) if character != _END and character.isascii() else 0
        self._budget.spend(_REMEMBERED + len(reached))
        states = frozenset(target for state in reached for mask, target in self._states[state].over if mask & bit)
        following = self._row(states, _kind(character)) if states else None
        row.known[character] = self._last in reached, following
        return row.known[character]

    def _row(self, states: frozenset[int], before: str) -> _Row:
        return self._rows.setdefault((states, before), _Row(states, before))

    def _follow(self, states: frozenset[int], before: str, after: str) -> set[int]:
        """Follow what costs no character, between a character of the kind *before* and the character *after*."""
        seen, waiting = set(states), list(states)
        while waiting:
            ways = self._states[waiting.pop()].free
            self._budget.spend(len(ways))
            for place, target in ways:
                if target not in seen and _is_at(place, before, _kind(after)):
                    seen.add(target)
                    waiting.append(target)
        return seen

    def _build(self, node: Node, start: int) -> int:
        """Add *node* after the state *start*; return the state after it."""
        match node:
            case Chars(mask):
                end = self._new()
                self._states[start].over.append((mask, end))
                return end
            case Place(kind):
                return self._free(start, self._new(), kind)
            case Then(parts):
                for part in parts:
                    start = self._build(part, start)
                return start
            case Either(branches):
                ends = [self._build(branch, self._free(start, self._new())) for branch in branches]
                end = self._new()
                for branch_end in ends:
                    self._free(branch_end, end)
                return end
            case Loop(body, low, high):
                return self._build_loop(body, low, high, start)

    def _build_loop(self, body: Node, low: int, high: int | None, start: int) -> int:
        for _ in range(low):
            start = self._build(body, start)
        if high is None:
            inside = self._free(start, self._new())
            self._free(self._build(body, inside), inside)
            return self._free(inside, self._new())
        end = self._free(start, self._new())
        for _ in range(high - low):
            start = self._build(body, start)
            self._free(start, end)
        return end

    def _free(self, start: int, end: int, place: str = "") -> int:
        self._states[start].free.append((place, end))
        return end

    def _new(self) -> int:
        if len(self._states) >= _STATES_LIMIT:
            raise EndlessRegexError(f"more than {_STATES_LIMIT} states")
        self._budget.spend(1)
        self._states.append(_State())
        return len(self._states) - 1


def _kind(character: str) -> str:
    """Say what a place can see of a character beside it: a word's, another, or none."""
    if character == _END:
        return "$"
    return "w" if mask_of(character) & WORD else "-"


def _is_at(place: str, before: str, after: str) -> bool:
    match place:
        case "^" | "$":
            return place in (before, after)
        case "b":
            return (before == "w") is not (after == "w")
        case "B":
            return (before == "w") is (after == "w")
        case _:
            return True
