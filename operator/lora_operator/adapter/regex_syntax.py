"""A regex as a tree: parsed as Python's `re` reads it, and refused where `re` might never end with it.

Over printable ASCII, the characters of module names. Flags, back references and possessive loops are not understood
here, nor is looking round, but for looking ahead after a beginning of one length; that is said.
"""

import math
import re
from dataclasses import dataclass, field

_DEPTH_LIMIT = 40
# Beyond this many rounds, a loop whose body has a choice may keep re busy for ever.
_ROUNDS_LIMIT = 8
# So many loops in a row cost re their number as a power of the name's length.
_LOOPS_LIMIT = 6
# So many choices in a row, each of two ways, cost re two to their power. A loop in a row is as good as four.
_CHOICES_LIMIT = 32

_ALL = (1 << 128) - 1
_ANY = _ALL & ~(1 << ord("\n"))


class RegexError(ValueError):
    """A regex that is not run; its class says why."""


class BrokenRegexError(RegexError):
    """Python's re refuses it."""


class EndlessRegexError(RegexError):
    """Python's re might never end with it."""


class UnknownRegexError(RegexError):
    """It uses what is not understood here."""


@dataclass(frozen=True, slots=True)
class Chars:
    """One character of a set; bit n of *mask* is the character with the code n."""

    mask: int


@dataclass(frozen=True, slots=True)
class Place:
    """No character, but a place: ^, $, b or B."""

    kind: str


@dataclass(frozen=True, slots=True)
class Either:
    """One of several."""

    branches: tuple["Node", ...]


@dataclass(frozen=True, slots=True)
class Then:
    """One after the other."""

    parts: tuple["Node", ...]


@dataclass(frozen=True, slots=True)
class Loop:
    """From *low* to *high* times; None: without end."""

    body: "Node"
    low: int
    high: int | None


Node = Chars | Place | Either | Then | Loop


@dataclass(frozen=True, slots=True)
class Tree:
    """A whole regex: *ahead* has conditions on the start of the name, True where it must not match."""

    node: Node
    ahead: tuple[tuple[bool, Node], ...]


def parse(text: str) -> Tree:
    """Parse *text*; raises RegexError."""
    parser = _Parser(text)
    node = parser.whole()
    for part in (node, *(condition for _, condition in parser.ahead)):
        loops = _loops(part)
        if loops > _LOOPS_LIMIT:
            raise EndlessRegexError(f"more than {_LOOPS_LIMIT} loops in a row")
        if 4 * loops + _choices(part) > _CHOICES_LIMIT:
            raise EndlessRegexError(f"more than two to the power of {_CHOICES_LIMIT} ways through it")
    return Tree(node, tuple(parser.ahead))


def mask_of(characters: str) -> int:
    """Return the set of *characters*; those beyond ASCII occur in no name."""
    return sum(1 << ord(character) for character in set(characters) if character.isascii())


DIGITS = mask_of("0123456789")
WORD = DIGITS | mask_of("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ_")
_SPACE = mask_of(" \t\n\r\f\v")
_CLASSES = {
    "d": DIGITS, "D": _ALL & ~DIGITS, "w": WORD, "W": _ALL & ~WORD, "s": _SPACE, "S": _ALL & ~_SPACE,
}  # fmt: skip
_CONTROLS = {"n": "\n", "t": "\t", "r": "\r", "f": "\f", "v": "\v", "a": "\a"}
_PLACES = {"b": "b", "B": "B", "A": "^", "Z": "$"}
_COUNTED = re.compile(r"\{(\d{0,6})(,?)(\d{0,6})\}")
_OPENED = re.compile(r"\?(:|P<[A-Za-z_]\w{0,60}>)")


@dataclass(slots=True)
class _Parser:
    """Recursive descent, one method a rule."""

    text: str
    at: int = 0
    ahead: list[tuple[bool, Node]] = field(default_factory=list)
    branches: int = 1
    names: set[str] = field(default_factory=set)

    def whole(self) -> Node:
        """Parse all of it."""
        node = self._choice(0)
        if self.ahead and self.branches > 1:
            raise UnknownRegexError("looking ahead in one of several branches")
        if self.at != len(self.text):
            raise BrokenRegexError("a group that was not opened")
        return node

    def _choice(self, depth: int) -> Node:
        if depth > _DEPTH_LIMIT:
            raise UnknownRegexError("groups nested too deeply")
        branches = [self._sequence(depth)]
        while self._next() == "|":
            self.at += 1
            branches.append(self._sequence(depth))
        self.branches = len(branches)
        return branches[0] if len(branches) == 1 else Either(tuple(branches))

    def _sequence(self, depth: int) -> Node:
        parts: list[Node] = []
        while self._next() not in ("", "|", ")"):
            if depth == 0 and self.text.startswith(("(?=", "(?!"), self.at):
                self._look_ahead(parts)
                continue
            node = self._atom(depth)
            bounds = self._quantifier()
            if bounds is not None:
                node = self._loop(node, *bounds)
            parts.append(node)
        return parts[0] if len(parts) == 1 else Then(tuple(parts))

    def _look_ahead(self, before: list[Node]) -> None:
        """Parse a condition on what follows: as good as one on the start, where all that is *before* has one length."""
        if any(_width(node) is None for node in before):
            raise UnknownRegexError("looking ahead after what has several lengths")
        negative = self.text[self.at + 2] == "!"
        self.at += 3
        self.ahead.append((negative, Then((*before, self._choice(1)))))
        self._close()
        if self._quantifier() is not None:
            raise UnknownRegexError("looking ahead in a loop")

    def _loop(self, node: Node, low: int, high: int | None) -> Node:
        if isinstance(node, Place) or (high is not None and low > high):
            raise BrokenRegexError("nothing to repeat")
        if self._next() == "+":
            raise UnknownRegexError("a possessive loop")
        if self._next() == "?":  # lazy or not: the same names match
            self.at += 1
        if self._quantifier() is not None:
            raise BrokenRegexError("a loop of a loop")
        return Loop(node, low, high)

    def _quantifier(self) -> tuple[int, int | None] | None:
        simple: tuple[int, int | None] | None = {"*": (0, None), "+": (1, None), "?": (0, 1)}.get(self._next())
        if simple is not None:
            self.at += 1
            return simple
        counted = _COUNTED.match(self.text, self.at)
        if counted is None or counted[0] == "{}":
            return None
        self.at = counted.end()
        low = int(counted[1] or 0)
        return low, int(counted[3]) if counted[3] else (None if counted[2] else low)

    def _atom(self, depth: int) -> Node:
        if self._quantifier() is not None:
            raise BrokenRegexError("nothing to repeat")
        character = self._next()
        self.at += 1
        match character:
            case "(":
                return self._group(depth)
            case "[":
                return self._set()
            case ".":
                return Chars(_ANY)
            case "^" | "$":
                return Place(character)
            case "\\":
                return self._escape()
            case _:
                return Chars(mask_of(character))

    def _group(self, depth: int) -> Node:
        opened = _OPENED.match(self.text, self.at)
        if opened:
            self.at = opened.end()
            if opened[1] in self.names:
                raise BrokenRegexError("two groups of one name")
            self.names |= {opened[1]} - {":"}
        elif self._next() == "?":
            raise UnknownRegexError(f"({self.text[self.at : self.at + 3]}")
        node = self._choice(depth + 1)
        self._close()
        # So that a group of nothing but a place may be repeated, as in re.
        return Then((node,)) if isinstance(node, Place) else node

    def _close(self) -> None:
        if self._next() != ")":
            raise BrokenRegexError("a group that is not closed")
        self.at += 1

    def _escape(self) -> Node:
        character = self._next()
        self.at += 1
        if character in _PLACES:
            return Place(_PLACES[character])
        return Chars(_CLASSES[character] if character in _CLASSES else mask_of(self._literal(character)))

    @staticmethod
    def _literal(character: str) -> str:
        if character in _CONTROLS:
            return _CONTROLS[character]
        if character.isdigit() or character in tuple("xuUN"):
            raise UnknownRegexError(f"\\{character}")
        if not character or (character.isascii() and character.isalpha()):
            raise BrokenRegexError(f"\\{character}")
        return character

    def _set(self) -> Node:
        negative = self._next() == "^"
        self.at += negative
        mask, first = 0, True
        while first or self._next() != "]":
            first = False
            low, part = self._member()
            if self._next() == "-" and self.text[self.at + 1 : self.at + 2] not in ("]", ""):
                self.at += 1
                high, _ = self._member()
                if not low or not high or ord(low) > ord(high):
                    raise BrokenRegexError("a range the wrong way round")
                part = sum(1 << code for code in range(ord(low), min(ord(high), 127) + 1))
            mask |= part
        self.at += 1
        return Chars(_ALL & ~mask if negative else mask)

    def _member(self) -> tuple[str, int]:
        character = self._next()
        self.at += 1
        if not character:
            raise BrokenRegexError("a set that is not closed")
        if character != "\\":
            return character, mask_of(character)
        escaped = self._next()
        self.at += 1
        if escaped in _CLASSES:
            return "", _CLASSES[escaped]
        literal = "\b" if escaped == "b" else self._literal(escaped)
        return literal, mask_of(literal)

    def _next(self) -> str:
        return self.text[self.at : self.at + 1]


def _loops(node: Node) -> int:
    """Count the loops in a row, and refuse one over a choice: re tries all ways through it."""
    match node:
        case Either(branches):
            return max(_loops(branch) for branch in branches)
        case Then(parts):
            return sum(_loops(part) for part in parts)
        case Loop(body, _, high):
            many = high is None or high > _ROUNDS_LIMIT
            if many and _has_choice(body):
                raise EndlessRegexError("a loop over what has a choice in it")
            return _loops(body) * (high or 1) + many
        case _:
            return 0


def _choices(node: Node) -> float:
    """Return how often re may have to choose between two ways, loops of many rounds aside."""
    match node:
        case Either(branches):
            own = 0.0 if _is_set(branches) else math.log2(len(branches))
            return own + max(_choices(branch) for branch in branches)
        case Then(parts):
            return sum(_choices(part) for part in parts)
        case Loop(body, low, high) if high is not None and high <= _ROUNDS_LIMIT:
            return _choices(body) * high + math.log2(high - low + 1)
        case _:
            return 0.0


def _width(node: Node) -> int | None:
    """Return how many characters *node* takes; None where that may differ."""
    match node:
        case Chars():
            return 1
        case Place():
            return 0
        case Either(branches):
            widths = {_width(branch) for branch in branches}
            return widths.pop() if len(widths) == 1 else None
        case Then(parts):
            return _sum([_width(part) for part in parts])
        case Loop(body, low, high):
            return _sum([_width(body)] * low) if low == high else None


def _sum(widths: list[int | None]) -> int | None:
    return None if None in widths else sum(width for width in widths if width is not None)


def _has_choice(node: Node) -> bool:
    match node:
        case Either(branches):
            return not _is_set(branches)
        case Then(parts):
            return any(_has_choice(part) for part in parts)
        case Loop(body, low, high):
            return low != high or _has_choice(body)
        case _:
            return False


def _is_set(branches: tuple[Node, ...]) -> bool:
    """Tell whether each branch is one character that no other branch has: that is a set, and no choice."""
    taken = 0
    for branch in branches:
        if not isinstance(branch, Chars) or branch.mask & taken:
            return False
        taken |= branch.mask
    return True
