"""Plain names as keys of rank_pattern and alpha_pattern: looked up, where PEFT runs a regex for each key.

A config may have a long key for each of a thousand modules; to compare each with each would take minutes.
"""

from .regex_syntax import EndlessRegexError

# Characters of modules' names looked at. A model of 126 layers with a key for each of its modules takes 100,000.
WORK_LIMIT = 10_000_000

# By a key's length, and the places of its dots in it: each key, with where it stands in the config.
_Tables = dict[int, dict[tuple[int, ...], dict[str, int]]]


class Literals:
    """Matches `(.*\\.)?(key)$` for keys of plain characters, in which a dot stands for any character.

    Keys of the same length with their dots at the same places share a table. The end of a module's name, with dots put
    at those places, is in it or matches none of them. *work* counts the characters that were looked at.
    """

    def __init__(self) -> None:
        self.work = 0
        self._ends: _Tables = {}
        self._wholes: _Tables = {}

    def add(self, key: str, position: int) -> None:
        """Take in a key that stands at *position* in the config; of two that match the same, the first counts."""
        suffix = key.removeprefix("^")
        dots = tuple(place for place, character in enumerate(suffix) if character == ".")
        tables = self._ends if suffix is key else self._wholes
        tables.setdefault(len(suffix), {}).setdefault(dots, {}).setdefault(suffix, position)

    def first(self, module: str) -> int | None:
        """Return the position of the first key that matches; raises EndlessRegexError beyond the bound."""
        found = self._found(self._ends, module) + self._found(self._wholes, module)
        start = module.find(".") + 1
        while start > 0:
            found += self._found(self._ends, module[start:])
            start = module.find(".", start) + 1
        return min(found, default=None)

    def _found(self, tables: _Tables, end: str) -> list[int]:
        found = []
        for dots, keys in tables.get(len(end), {}).items():
            self.work += len(end)
            if self.work > WORK_LIMIT:
                raise EndlessRegexError(f"more than {WORK_LIMIT} characters of names to compare")
            position = keys.get(_dotted(end, dots))
            if position is not None:
                found.append(position)
        return found


def _dotted(text: str, places: tuple[int, ...]) -> str:
    characters = list(text)
    for place in places:
        characters[place] = "."
    return "".join(characters)
