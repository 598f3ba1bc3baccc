"""adapter_config.json: decoded as hostile input, then read into a typed `LoraConfig`.

PEFT and vLLM read this file with Python's json and next to no checks; here every value that one of them uses has its
type and its range checked. Which PEFT features are served is `variants.py`'s question, not this module's.
"""

import codecs
import json
import math
from dataclasses import dataclass, field
from typing import TypeGuard

from .findings import Code, Findings
from .names import CONFIG

# A config that lists every module of a 120-layer model by its full name has some 100 kB.
CONFIG_LIMIT = 1024 * 1024
# A rank beyond this is no low rank; it also keeps figures of 10,000 digits out of every sum.
_RANK_LIMIT = 2**16
_VALUES_LIMIT = 200_000
# So many targets PEFT takes another way: it looks for shorter names that tell them from the other modules as well.
CONDENSED = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class LoraConfig:
    """What the rules need of the config; *raw* is all of it, decoded and free of non-finite numbers."""

    rank: int
    lora_alpha: float
    use_rslora: bool
    target_modules: tuple[str, ...] | str
    exclude_modules: tuple[str, ...] | str
    layers_to_transform: tuple[float, ...] | None
    layers_pattern: tuple[str, ...]
    rank_pattern: dict[str, int]
    alpha_pattern: dict[str, float]
    base_model: str | None
    raw: dict[str, object] = field(repr=False)

    @property
    def init(self) -> object:
        """What PEFT starts with where there are no tensors; anything false but a text leaves B at random."""
        return self.raw.get("init_lora_weights", True)

    def highest_rank(self) -> tuple[str, int]:
        """Return the field with the highest rank, and the rank: vLLM refuses it even for a module that is not there."""
        ranks = {"r": self.rank} | {f"rank_pattern.{key}": rank for key, rank in self.rank_pattern.items()}
        return max(ranks.items(), key=lambda item: item[1])

    def scaling(self, rank: int, alpha: float) -> float:
        """Return what PEFT and vLLM multiply B·A by."""
        return alpha / (math.sqrt(rank) if self.use_rslora else rank)


def parse_config(data: bytes, findings: Findings) -> LoraConfig | None:
    """Read the config; None, with findings that say why, where it is not one that PEFT would load."""
    raw = _decode(data, findings)
    if raw is None:
        return None
    reader = _Reader(raw, findings)
    config = LoraConfig(
        rank=reader.rank(),
        lora_alpha=reader.alpha(),
        use_rslora=reader.flag("use_rslora"),
        target_modules=reader.names_or_regex("target_modules", required=True),
        exclude_modules=reader.names_or_regex("exclude_modules"),
        layers_to_transform=reader.layers(),
        layers_pattern=reader.layers_pattern(),
        rank_pattern=reader.rank_pattern(),
        alpha_pattern=reader.alpha_pattern(),
        base_model=reader.base_model(),
        raw=raw,
    )
    reader.check_dropout()
    reader.check_layers()
    return None if reader.failed else config


def _decode(data: bytes, findings: Findings) -> dict[str, object] | None:
    problem = None
    raw: object = None
    if len(data) > CONFIG_LIMIT:
        problem = f"{len(data)} bytes"
    elif data.count(b",") + data.count(b"[") + data.count(b"{") > _VALUES_LIMIT:
        problem = f"more than {_VALUES_LIMIT} values"
    elif data.startswith(codecs.BOM_UTF8):
        problem = "a byte order mark at its start: save it without one"
    else:
        try:
            raw = json.loads(data.decode("utf-8"), object_pairs_hook=_unique)
        except UnicodeDecodeError:
            problem = "not UTF-8"
        except RecursionError:
            problem = "nested too deeply"
        except ValueError as error:
            problem = f"not JSON ({error})"
        else:
            problem = None if isinstance(raw, dict) else "not a JSON object"
    if problem is None:
        bad = _first_bad(raw)
        if bad is None and isinstance(raw, dict):
            return raw
        where, problem = bad or (CONFIG, "not a JSON object")
        _malformed(findings, where, problem, "JSON with finite numbers and whole characters")
        return None
    _malformed(findings, CONFIG, problem, "a JSON object in UTF-8, at most 1 MiB")
    return None


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    """Refuse a name that is there twice: of two readers, each may take another of its values."""
    entries = dict(pairs)
    if len(entries) != len(pairs):
        raise ValueError("a field is there twice")
    return entries


def _first_bad(root: object) -> tuple[str, str] | None:
    """Find a number that is not finite (it poisons every neighbour) or half a surrogate pair (it hangs vLLM)."""
    stack: list[tuple[str, object]] = [("", root)]
    while stack:
        where, value = stack.pop()
        match value:
            case float() if not math.isfinite(value):
                return where or CONFIG, f"the number {value}"
            case str() if _has_surrogate(value):
                return where or CONFIG, "a text with half a surrogate pair"
            case dict():
                if any(_has_surrogate(key) for key in value):
                    return where or CONFIG, "a name with half a surrogate pair"
                stack.extend((f"{where}.{key}" if where else key, item) for key, item in value.items())
            case list():
                stack.extend((f"{where}[{index}]", item) for index, item in enumerate(value))
    return None


def _has_surrogate(text: str) -> bool:
    return not text.isascii() and any("\ud800" <= character <= "\udfff" for character in text)


def _malformed(findings: Findings, where: str, found: object, expected: str) -> None:
    findings.error(
        Code.MALFORMED_CONFIG,
        where,
        found=found,
        expected=expected,
        fix=f"correct it in {CONFIG}, or save the adapter again with PEFT",
    )


class _Reader:
    """Reads one field after the other; remembers whether one of them could not be read."""

    def __init__(self, raw: dict[str, object], findings: Findings) -> None:
        self._raw = raw
        self._findings = findings
        self.failed = False

    def rank(self) -> int:
        return self._rank("r", self._raw.get("r"))

    def alpha(self) -> float:
        return self._number("lora_alpha", self._raw.get("lora_alpha"))

    def flag(self, name: str) -> bool:
        value = self._raw.get(name)
        if value is not None and not isinstance(value, bool):
            self._warn(name, value, 'true or false (PEFT and vLLM take any text for true, "no" as well)')
        return bool(value)

    def base_model(self) -> str | None:
        """Nobody who serves reads it: one that is no text names no base."""
        value = self._raw.get("base_model_name_or_path")
        if value is None or isinstance(value, str):
            return value
        self._warn("base_model_name_or_path", value, "a text")
        return None

    def names_or_regex(self, name: str, *, required: bool = False) -> tuple[str, ...] | str:
        value = self._raw.get(name)
        if isinstance(value, str) and value:
            return value
        if _is_texts(value) and (value or not required):
            if name == "target_modules" and "" in value and len(set(value)) >= CONDENSED:
                self._refuse(name, value, "no empty name among so many")
            return tuple(value)
        if required or value:
            self._refuse(name, value, "a list of module names" if name in self._raw else "set")
        return ()

    def layers(self) -> tuple[float, ...] | None:
        value = self._raw.get("layers_to_transform")
        if value is None or value == []:
            return None
        layers = value if isinstance(value, list) else [value]
        # One that is not there is none that is transformed. PEFT looks for a layer's number among them, as which 0.0
        # and false are as good as 0; by itself it takes none with a point.
        if isinstance(value, float) or not all(isinstance(layer, int | float) for layer in layers):
            self._refuse("layers_to_transform", value, "layer numbers")
            return None
        if any(type(layer) is not int for layer in layers):
            self._warn("layers_to_transform", value, "whole numbers")
        return tuple(layers)

    def layers_pattern(self) -> tuple[str, ...]:
        value = self._raw.get("layers_pattern")
        if not value and not isinstance(value, bool | int | float):
            return ()
        if isinstance(value, str):
            return (value,)
        if _is_texts(value):
            return tuple(value)
        self._refuse("layers_pattern", value, "names")
        return ()

    def rank_pattern(self) -> dict[str, int]:
        return {key: self._rank(f"rank_pattern.{key}", value) for key, value in self._pattern("rank_pattern").items()}

    def alpha_pattern(self) -> dict[str, float]:
        return {
            key: self._number(f"alpha_pattern.{key}", value) for key, value in self._pattern("alpha_pattern").items()
        }

    def check_dropout(self) -> None:
        """Inference never uses it, but PEFT refuses to build a layer with an impossible one."""
        value = self._raw.get("lora_dropout", 0.0)
        if not isinstance(value, int | float) or value > 1:
            self._refuse("lora_dropout", value, "a number up to 1")

    def check_layers(self) -> None:
        """PEFT narrows a list of targets by layers, never a regex, and needs the layers where their pattern is set."""
        layers, pattern = self._raw.get("layers_to_transform"), self._raw.get("layers_pattern")
        if isinstance(self._raw.get("target_modules"), str) and (layers is not None or pattern is not None):
            self._refuse("target_modules", self._raw["target_modules"], "a list, where layers_to_transform is set")
        elif pattern and layers is None:
            self._refuse("layers_pattern", pattern, "layers_to_transform beside it")

    def _pattern(self, name: str) -> dict[str, object]:
        value = self._raw.get(name, {})
        if isinstance(value, dict):
            return value
        self._refuse(name, value, "an object of name and number")
        return {}

    def _rank(self, where: str, value: object) -> int:
        if type(value) is int and 0 < value < _RANK_LIMIT:
            return value
        self._refuse(where, value, f"a whole number from 1 to {_RANK_LIMIT - 1}")
        return 1

    def _number(self, where: str, value: object) -> float:
        # An integer of 400 digits is JSON, but no float; 1e30 times any weight is no number in float32.
        if isinstance(value, int | float) and abs(value) < 1e30:
            if isinstance(value, bool):
                self._warn(where, value, "a number (PEFT and vLLM count with true as 1)")
            return float(value)
        self._refuse(where, value, "a finite number")
        return 0.0

    def _refuse(self, where: str, value: object, expected: str) -> None:
        self.failed = True
        found = "missing" if value is None and where not in self._raw else value
        _malformed(self._findings, where, found, expected)

    def _warn(self, where: str, value: object, expected: str) -> None:
        """Report what is not as it should be, and means the same to PEFT and vLLM."""
        self._findings.warning(
            Code.MALFORMED_CONFIG, where, found=value, expected=expected, fix=f"correct it in {CONFIG}"
        )


def _is_texts(value: object) -> TypeGuard[list[str]]:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)
