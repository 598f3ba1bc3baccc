"""Which modules a config names: PEFT's matching, without ever running a regex that a stranger wrote.

PEFT and vLLM take the keys of rank_pattern and alpha_pattern as regexes, some of which never end. A key made of name
characters means the same as a suffix at a dot, so it is compared as one; any other key is left to the caller to refuse.
"""

import re
from collections.abc import Mapping
from typing import TypeVar

from .config import LoraConfig

_LITERAL = re.compile(r"\^?[A-Za-z0-9_.-]{1,512}")
_LAYER = re.compile(r"\.(\d{1,6})\.")

Value = TypeVar("Value")


def is_literal(key: str) -> bool:
    """Tell whether *key* can be compared without a regex engine."""
    return _LITERAL.fullmatch(key) is not None


def lookup(pattern: Mapping[str, Value], module: str, default: Value) -> Value:
    """Return the value of the first literal key that names *module*, as PEFT's `get_pattern_key` would."""
    for key, value in pattern.items():
        if is_literal(key) and _ends_with(module, key):
            return value
    return default


def _ends_with(module: str, key: str) -> bool:
    """Match `(.*\\.)?(key)$` for a key of plain characters, in which a dot stands for any character."""
    anchored = key.startswith("^")
    suffix = key.removeprefix("^")
    start = len(module) - len(suffix)
    if start < 0 or (anchored and start > 0):
        return False
    if start > 0 and module[start - 1] != ".":
        return False
    return all(wanted in (".", found) for wanted, found in zip(suffix, module[start:], strict=True))


def is_targeted(config: LoraConfig, module: str) -> bool | None:
    """Tell whether PEFT would put a LoRA on *module*; None where a regex or a pattern decides."""
    excluded = _listed(config.exclude_modules, module) if config.exclude_modules else False
    if excluded is not False:
        return None if excluded is None else False
    targeted = _listed(config.target_modules, module)
    if not targeted or config.layers_to_transform is None or module in config.target_modules:
        return targeted
    if config.layers_pattern:
        return None
    layer = layer_of(module)
    return layer is not None and layer in config.layers_to_transform


def layer_of(module: str) -> int | None:
    """Return the number of the layer that *module* is in."""
    found = _LAYER.search(module)
    return int(found[1]) if found else None


def _listed(names: tuple[str, ...] | str, module: str) -> bool | None:
    if isinstance(names, str):
        return None
    return module in names or any(module.endswith(f".{name}") for name in names)
