"""adapter_config.json: decoded as hostile input, then read into a typed `LoraConfig`.

PEFT and vLLM read this file with Python's json and next to no checks; here every value that one of them uses has its
type and its range checked. Which PEFT features are served is `variants.py`'s question, not this module's.
"""

import codecs
import json
import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TypeGuard

from .findings import Code, Findings, has_surrogate, repr_bounded
from .foreign import explain_beginning, explain_kind
from .names import CONFIG

# A config that lists every module of a 120-layer model by its full name has some 100 kB.
CONFIG_LIMIT = 1024 * 1024
# A rank beyond this is no low rank; it also keeps figures of 10,000 digits out of every sum.
_RANK_LIMIT = 2**16
_VALUES_LIMIT = 200_000
# So many targets PEFT takes another way: it looks for shorter names that tell them from the other modules as well.
CONDENSED = 20
_FIX = f"correct it in {CONFIG}, or save the adapter again with PEFT"


@dataclass(frozen=True, slots=True, kw_only=True)
class LoraConfig:
    """What the rules need of the config; *raw* is all of it, decoded."""

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
    foreign = explain_beginning(data)
    if foreign is not None:
        _malformed(findings, CONFIG, foreign[0], "a JSON object in UTF-8", fix=foreign[1])
        return None
    raw = _decode(data, findings)
    if raw is None:
        return None
    if not _is_lora(raw, findings):
        return None
    reader = _Reader(raw, findings)
    config = LoraConfig(
        rank=reader.rank(),
        lora_alpha=reader.alpha(),
        use_rslora=reader.flag("use_rslora"),
        target_modules=reader.target_modules(),
        exclude_modules=reader.exclude_modules(),
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


def _is_lora(raw: dict[str, object], findings: Findings) -> bool:
    """Report another peft_type; tell whether the fields may be read as a LoRA's all the same."""
    kind = raw.get("peft_type")
    if kind == "LORA":
        return True
    found, fix = explain_kind(raw)
    findings.error(Code.UNSUPPORTED_VARIANT, "peft_type", found=found, expected='"LORA"', fix=fix)
    return kind is None or (isinstance(kind, str) and kind.upper() == "LORA")


def with_default_targets(config: LoraConfig, defaults: tuple[str, ...], findings: Findings) -> LoraConfig | None:
    """Fill in the *defaults* that PEFT has for the base, where target_modules is null; None where that is no use.

    Where the field is missing altogether, vLLM refuses the config.
    """
    if config.raw.get("target_modules") is not None:
        return config
    if "target_modules" not in config.raw or not defaults or config.raw.get("target_parameters"):
        found = "null" if "target_modules" in config.raw else "missing"
        _malformed(findings, "target_modules", found, "a list of module names")
        return None
    findings.warning(
        Code.MALFORMED_CONFIG,
        "target_modules",
        found="null",
        expected=f"{', '.join(defaults)}, which PEFT fills in for this base",
        fix=f"write them into {CONFIG}",
    )
    return replace(config, target_modules=defaults)


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
            raw = json.loads(data.decode("utf-8"), object_pairs_hook=partial(_last_of_each, findings))
        except UnicodeDecodeError:
            problem = "not UTF-8"
        except RecursionError:
            problem = "nested too deeply"
        except ValueError as error:
            problem = f"not JSON ({error})"
    if problem is None and isinstance(raw, dict):
        return raw if _check_values(raw, findings) else None
    _malformed(findings, CONFIG, problem or "not a JSON object", "a JSON object in UTF-8, at most 1 MiB")
    return None


def _last_of_each(findings: Findings, pairs: list[tuple[str, object]]) -> dict[str, object]:
    """Take of a name that is there twice the last value, as PEFT and vLLM do, and say so."""
    entries = dict(pairs)
    if len(entries) != len(pairs):
        [(twice, _)] = Counter(name for name, _ in pairs).most_common(1)
        findings.warning(
            Code.MALFORMED_CONFIG,
            twice,
            found="there twice",
            expected="once (PEFT and vLLM take the last)",
            fix=f"leave one of them out of {CONFIG}",
        )
    return entries


def _check_values(root: object, findings: Findings) -> bool:
    """Report half a surrogate pair, which hangs vLLM, and numbers that JSON does not have; tell whether all is well.

    What a number means that is not finite, and whether anybody reads it, is for its field to say.
    """
    stack: list[tuple[str, object]] = [("", root)]
    while stack:
        where, value = stack.pop()
        texts: Iterable[str] = ()
        match value:
            case float() if not math.isfinite(value):
                findings.warning(
                    Code.MALFORMED_CONFIG,
                    where or CONFIG,
                    found=value,
                    expected="JSON, which has no such number (Python's reader alone takes it)",
                    fix=f"correct it in {CONFIG}",
                )
            case str():
                texts = (value,)
            case dict():
                texts = value
                stack.extend((f"{where}.{key}" if where else key, item) for key, item in value.items())
            case list():
                stack.extend((f"{where}[{index}]", item) for index, item in enumerate(value))
        if any(map(has_surrogate, texts)):
            _malformed(findings, where or CONFIG, "a text with half a surrogate pair", "whole characters")
            return False
    return True


def _malformed(findings: Findings, where: str, found: str, expected: str, *, fix: str = _FIX) -> None:
    findings.error(Code.MALFORMED_CONFIG, where, found=found, expected=expected, fix=fix)


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

    def target_modules(self) -> tuple[str, ...] | str:
        """Nothing, where the base decides: see `with_default_targets`."""
        names = self._names_or_regex("target_modules")
        if not names and self._raw.get("target_modules") is not None:
            self._refuse("target_modules", self._raw["target_modules"], "a list of module names")
        elif isinstance(names, tuple) and "" in names and len(set(names)) >= CONDENSED:
            self._refuse("target_modules", names, "no empty name among so many")
        return names

    def exclude_modules(self) -> tuple[str, ...] | str:
        names = self._names_or_regex("exclude_modules")
        if not names and self._raw.get("exclude_modules"):
            self._refuse("exclude_modules", self._raw["exclude_modules"], "a list of module names")
        return names

    def _names_or_regex(self, name: str) -> tuple[str, ...] | str:
        """Return names, or a regex; nothing where it is neither, or empty."""
        value = self._raw.get(name)
        if isinstance(value, str):
            return value
        if isinstance(value, dict) and 0 < len(value) < CONDENSED:
            self._warn(name, value, "a list of module names (PEFT takes an object's names)")
            return tuple(value)
        return tuple(value) if _is_texts(value) else ()

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
        self._refuse(where, value, "a number below 1e30")
        return 0.0

    def _refuse(self, where: str, value: object, expected: str) -> None:
        self.failed = True
        found = "missing" if value is None and where not in self._raw else repr_bounded(value)
        _malformed(self._findings, where, found, expected)

    def _warn(self, where: str, value: object, expected: str) -> None:
        """Report what is not as it should be, and means the same to PEFT and vLLM."""
        self._findings.warning(
            Code.MALFORMED_CONFIG, where, found=repr_bounded(value), expected=expected, fix=f"correct it in {CONFIG}"
        )


def _is_texts(value: object) -> TypeGuard[list[str]]:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)
