"""The regexes of a stranger, run in time that has a bound: an automaton in the place of `re`'s backtracking."""

from dataclasses import dataclass, field

from .regex_syntax import WORD, Chars, Either, EndlessRegexError, Loop, Node, Place, Then, mask_of, parse

_PATTERN_LIMIT = 8192
_STATES_LIMIT = 4096
_STEPS_LIMIT = 500_000
_END = ""


class Regex:
    """A regex that is safe to ask; raises RegexError where it can't be one."""

    def __init__(self, text: str) -> None:
        if len(text) > _PATTERN_LIMIT:
            raise EndlessRegexError(f"{len(text)} characters, more than {_PATTERN_LIMIT}")
        self._text = text
        tree = parse(text)
        self._automaton = _Automaton(tree.node)
        self._ahead = [(negative, _Automaton(node)) for negative, node in tree.ahead]

    def __str__(self) -> str:
        """Return the regex as it was written."""
        return self._text

    def fullmatch(self, name: str) -> bool:
        """Tell what `re.fullmatch` tells of *name*, printable ASCII; raises EndlessRegexError beyond its bound."""
        for negative, condition in self._ahead:
            if condition.matches(name, whole=False) is negative:
                return False
        return self._automaton.matches(name, whole=True)


@dataclass(slots=True)
class _State:
    """Where it may go: over a character of a set, or without one (only at a *place*, where there is one)."""

    over: list[tuple[int, int]] = field(default_factory=list)
    free: list[tuple[str, int]] = field(default_factory=list)


class _Automaton:
    """Thompson's: in many states at once. It remembers each step, so that most names cost a look-up a character."""

    def __init__(self, node: Node) -> None:
        self._states: list[_State] = [_State()]
        self._last = self._build(node, 0)
        self._steps = 0
        self._known: dict[tuple[frozenset[int], str, str], frozenset[int]] = {}

    def matches(self, name: str, *, whole: bool) -> bool:
        """Tell whether it leads through *name*, all of it or any part from its start."""
        states, before = frozenset({0}), "^"
        for character in (*name, _END):
            reached = self._reached(states, before, character)
            if self._last in reached and (character == _END or not whole):
                return True
            if character == _END:
                break
            states, before = self._step(states, before, character), _kind(character)
            if not states:
                break
        return False

    def _step(self, states: frozenset[int], before: str, character: str) -> frozenset[int]:
        key = (states, before, character)
        if key not in self._known:
            bit = 1 << ord(character) if character.isascii() else 0
            self._steps += len(states)
            self._known[key] = frozenset(
                target
                for state in self._reached(states, before, character)
                for mask, target in self._states[state].over
                if mask & bit
            )
        return self._known[key]

    def _reached(self, states: frozenset[int], before: str, after: str) -> frozenset[int]:
        """Follow what costs no character, between a character of the kind *before* and the character *after*."""
        key = (states, before, f"free {_kind(after)}")
        if key not in self._known:
            self._known[key] = frozenset(self._follow(states, before, after))
        return self._known[key]

    def _follow(self, states: frozenset[int], before: str, after: str) -> set[int]:
        seen, waiting = set(states), list(states)
        while waiting:
            for place, target in self._states[waiting.pop()].free:
                self._steps += 1
                if target not in seen and _is_at(place, before, _kind(after)):
                    seen.add(target)
                    waiting.append(target)
        if self._steps > _STEPS_LIMIT:
            raise EndlessRegexError(f"more than {_STEPS_LIMIT} steps")
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
