"""Which modules a config names: PEFT's matching of target_modules, rank_pattern and their like.

PEFT and vLLM take many of these for regexes, and run them; here a plain name is compared as one, and a regex is run by
an automaton that always ends. One that can't be had that way is a finding; what it names is then None, not known.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Generic, TypeVar

from .config import LoraConfig
from .findings import Code, Findings
from .names import CONFIG
from .regex_syntax import BrokenRegexError, EndlessRegexError, RegexError
from .regexes import Regex

_LITERAL = re.compile(r"\^?[A-Za-z0-9_.-]{1,512}")
_LAYER = re.compile(r"\.(\d{1,6})\.")
# How PEFT finds the number of a layer, without layers_pattern: the first after two names.
_LAYER_INDEX = re.compile(r".*?\.[^.]*\.(\d+)\.")
_LAYERS_PATTERN = re.compile(r"[A-Za-z0-9_]{1,64}")
# Neither Linear nor Conv1D, or the head: no part of what PEFT calls all-linear.
_NO_LINEAR = frozenset({"embed_tokens", "lm_head", "wte", "wpe", "word_embeddings", "embed_in", "embed_out"})
_REGEXES_LIMIT = 256
# Every key is compared with every module; a large model with a key a module needs fewer than this.
_LOOKUPS_LIMIT = 2_000_000
_CHARACTERS_LIMIT = 10_000_000

Value = TypeVar("Value")


def is_literal(key: str) -> bool:
    """Tell whether *key* can be compared without a regex engine."""
    return _LITERAL.fullmatch(key) is not None


class Lookup(Generic[Value]):
    """The keys of rank_pattern or alpha_pattern, looked up as PEFT's `get_pattern_key` does: the first wins."""

    def __init__(self, pattern: Mapping[str, Value], default: Value) -> None:
        self._keys: list[tuple[str | Regex, Value]] = []
        self._default = default
        self.size = len(pattern)
        self.regexes = 0
        self.refused: list[tuple[str, RegexError]] = []
        for key, value in pattern.items():
            try:
                self._keys.append((key if is_literal(key) else self._regex(key), value))
            except RegexError as error:
                self.refused.append((key, error))

    def of(self, module: str) -> Value | None:
        """Return the value for *module*; None where a key that was refused may decide it."""
        for key, value in () if self.refused else self._keys:
            try:
                if key.fullmatch(module) if isinstance(key, Regex) else _ends_with(module, key):
                    return value
            except RegexError as error:
                self.refused.append((str(key), error))
        return None if self.refused else self._default

    def _regex(self, key: str) -> Regex:
        self.regexes += 1
        if self.regexes > _REGEXES_LIMIT:
            raise EndlessRegexError(f"more than {_REGEXES_LIMIT} regexes")
        return Regex(rf"(.*\.)?({key})$")


def _ends_with(module: str, key: str) -> bool:
    """Match `(.*\\.)?(key)$` for a key of plain characters, in which a dot stands for any character."""
    suffix = key.removeprefix("^")
    start = len(module) - len(suffix)
    if start < 0 or (start > 0 and (suffix is not key or module[start - 1] != ".")):
        return False
    return all(wanted in (".", found) for wanted, found in zip(suffix, module[start:], strict=True))


class Targets:
    """What target_modules, exclude_modules and layers_to_transform leave in."""

    def __init__(self, config: LoraConfig) -> None:
        self.refused: list[tuple[str, str, RegexError]] = []
        # PEFT's word for every linear layer but the head; any other text is a regex.
        targets = config.target_modules
        self._all_linear = isinstance(targets, str) and targets.lower() == "all-linear"
        self._targets = None if self._all_linear else self._names("target_modules", targets)
        self._excluded = self._names("exclude_modules", config.exclude_modules)
        self.regexes = sum(isinstance(names, Regex) for names in (self._targets, self._excluded))
        self._layers = config.layers_to_transform
        self._layer_patterns = _layer_patterns(config.layers_pattern)

    def has(self, module: str) -> bool | None:
        """Tell whether PEFT would put a LoRA on *module*; None where a regex that was refused decides."""
        excluded = self._matches("exclude_modules", self._excluded, module)
        if excluded is not False:
            return None if excluded is None else False
        if self._all_linear:
            return module.rpartition(".")[2] not in _NO_LINEAR
        targeted = self._matches("target_modules", self._targets, module)
        # A full name counts in every layer; only a part of a name is narrowed by layers_to_transform.
        if not targeted or self._layers is None or not isinstance(self._targets, frozenset) or module in self._targets:
            return targeted
        return self._is_in_layers(module)

    def _is_in_layers(self, module: str) -> bool | None:
        if self._layer_patterns is None or self._layers is None:
            return None
        found = next((match for pattern in self._layer_patterns if (match := pattern.match(module))), None)
        return found is not None and int(found[1]) in self._layers

    def _matches(self, name: str, names: frozenset[str] | Regex | None, module: str) -> bool | None:
        if names is None or any(name == refused for refused, _, _ in self.refused):
            return None
        if not isinstance(names, Regex):
            # Nearly all adapters name modules by their last part.
            return module[module.rfind(".") + 1 :] in names or not names.isdisjoint(_suffixes(module))
        try:
            return names.fullmatch(module)
        except RegexError as error:
            self.refused.append((name, str(names), error))
            return None

    def _names(self, name: str, value: tuple[str, ...] | str) -> frozenset[str] | Regex | None:
        if not isinstance(value, str):
            return frozenset(value)
        try:
            return Regex(value)
        except RegexError as error:
            self.refused.append((name, value, error))
            return None


class Patterns:
    """All that a config says of modules by their names."""

    def __init__(self, config: LoraConfig) -> None:
        self.ranks = Lookup(config.rank_pattern, config.rank)
        self.alphas = Lookup(config.alpha_pattern, config.lora_alpha)
        self.targets = Targets(config)

    def are_affordable(self, modules: Iterable[str], findings: Findings) -> bool:
        """Report what is there to keep a processor busy: each key, and each character a regex, of each module."""
        names = list(modules)
        keys, length = self.ranks.size + self.alphas.size, sum(map(len, names))
        regexes = self.ranks.regexes + self.alphas.regexes + self.targets.regexes
        if len(names) * keys <= _LOOKUPS_LIMIT and length * regexes <= _CHARACTERS_LIMIT:
            return True
        findings.error(
            Code.PATTERN_NOT_SUPPORTED,
            "rank_pattern",
            found=f"{keys} keys with alpha_pattern, {regexes} regexes, for {len(names)} modules",
            expected=f"at most {_LOOKUPS_LIMIT} pairs of key and module, and fewer of a regex and a module",
            fix="name modules by their last part where they share a rank",
        )
        return False

    def report(self, findings: Findings) -> None:
        """Report the regexes that are not run; to be called when all modules were asked for."""
        keys = [("rank_pattern", *refused) for refused in self.ranks.refused]
        keys += [("alpha_pattern", *refused) for refused in self.alphas.refused]
        for name, text, error in [*keys, *self.targets.refused]:
            # A list of names is as good; a key that can't be run leaves rank or scaling open, so it is an error.
            endless = isinstance(error, EndlessRegexError) or name.endswith("_pattern")
            if isinstance(error, BrokenRegexError):
                _report_broken(name, text, error, findings)
            elif endless:
                findings.error(
                    Code.PATTERN_NOT_SUPPORTED,
                    name,
                    found=f"{text} ({error})",
                    expected="names, or a regex that always ends (PEFT runs it, and may never answer)",
                    fix="write the modules' names",
                )
            else:
                findings.warning(
                    Code.NOT_CHECKED,
                    name,
                    found=f"a regex that is not understood here ({error}): {text}",
                    expected="names, or a regex without flags, references and looking round",
                    fix="make sure that it names exactly the modules in the file",
                )


def layer_of(module: str) -> int | None:
    """Return the number of the layer that *module* is in."""
    found = _LAYER.search(module)
    return int(found[1]) if found else None


def _report_broken(name: str, text: str, error: RegexError, findings: Findings) -> None:
    findings.error(
        Code.MALFORMED_CONFIG,
        name,
        found=f"{text} ({error})",
        expected="a regex that Python's re compiles",
        fix=f"correct it in {CONFIG}",
    )


def _layer_patterns(names: tuple[str, ...]) -> list[re.Pattern[str]] | None:
    """Return how PEFT finds a layer's number; None where a regex of the config decides."""
    if not names:
        return [_LAYER_INDEX]
    if not all(_LAYERS_PATTERN.fullmatch(name) for name in names):
        return None
    return [re.compile(rf"(?:^|.*?\.){name}\.(\d+)\.") for name in names]


def _suffixes(module: str) -> Iterator[str]:
    """Yield *module* and every end of it that begins after a dot."""
    yield module
    position = module.find(".")
    while position >= 0:
        yield module[position + 1 :]
        position = module.find(".", position + 1)
