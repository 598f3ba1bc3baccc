"""Which modules a config names: PEFT's matching, without ever running a regex that a stranger wrote.

PEFT and vLLM take the keys of rank_pattern and alpha_pattern as regexes, some of which never end. A key made of name
characters means the same as a suffix at a dot, so it is compared as one; any other key is left to the caller to refuse.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Generic, TypeVar

from .config import LoraConfig

_LITERAL = re.compile(r"\^?[A-Za-z0-9_.-]{1,512}")
_LAYER = re.compile(r"\.(\d{1,6})\.")

Value = TypeVar("Value")


def is_literal(key: str) -> bool:
    """Tell whether *key* can be compared without a regex engine."""
    return _LITERAL.fullmatch(key) is not None


class Lookup(Generic[Value]):
    """The literal keys of rank_pattern or alpha_pattern, looked up as PEFT's `get_pattern_key` does: the first wins."""

    def __init__(self, pattern: Mapping[str, Value], default: Value) -> None:
        self._keys = [
            (key.removeprefix("^"), key.startswith("^"), value) for key, value in pattern.items() if is_literal(key)
        ]
        self._default = default

    def of(self, module: str) -> Value:
        """Return the value for *module*."""
        for suffix, anchored, value in self._keys:
            if _ends_with(module, suffix, anchored=anchored):
                return value
        return self._default


def _ends_with(module: str, suffix: str, *, anchored: bool) -> bool:
    """Match `(.*\\.)?(key)$` for a key of plain characters, in which a dot stands for any character."""
    start = len(module) - len(suffix)
    if start < 0 or (start > 0 and (anchored or module[start - 1] != ".")):
        return False
    return all(wanted in (".", found) for wanted, found in zip(suffix, module[start:], strict=True))


class Targets:
    """What target_modules, exclude_modules and layers_to_transform leave in."""

    def __init__(self, config: LoraConfig) -> None:
        self._targets = _names(config.target_modules)
        self._excluded = _names(config.exclude_modules)
        # PEFT's word for every linear layer but the head; any other text is a regex.
        self._all_linear = isinstance(config.target_modules, str) and config.target_modules.lower() == "all-linear"
        self._layers = config.layers_to_transform
        self._needs_regex = bool(config.layers_pattern)

    def has(self, module: str) -> bool | None:
        """Tell whether PEFT would put a LoRA on *module*; None where a regex decides."""
        suffixes = set(_suffixes(module))
        if self._excluded is None:
            return None
        if self._excluded & suffixes:
            return False
        if self._all_linear:
            return module.rpartition(".")[2] not in ("embed_tokens", "lm_head")
        if self._targets is None:
            return None
        # A full name counts in every layer; only a part of a name is narrowed by layers_to_transform.
        if module in self._targets or self._layers is None or not self._targets & suffixes:
            return bool(self._targets & suffixes)
        return None if self._needs_regex else layer_of(module) in self._layers


def layer_of(module: str) -> int | None:
    """Return the number of the layer that *module* is in."""
    found = _LAYER.search(module)
    return int(found[1]) if found else None


def _names(names: tuple[str, ...] | str) -> frozenset[str] | None:
    return None if isinstance(names, str) else frozenset(names)


def _suffixes(module: str) -> Iterator[str]:
    """Yield *module* and every end of it that begins after a dot."""
    yield module
    position = module.find(".")
    while position >= 0:
        yield module[position + 1 :]
        position = module.find(".", position + 1)
