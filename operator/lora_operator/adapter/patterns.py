"""Which modules a config names: PEFT's matching of target_modules, rank_pattern and their like.

PEFT and vLLM take many of these for regexes, and run them; here a plain name is compared as one, and a regex is run by
an automaton that always ends, or by Python's re where it surely ends soon. One that can't be had that way is refused;
what it names is then None, not known.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Generic, TypeVar

from .backtracking import Backtracking
from .config import CONDENSED, LoraConfig
from .findings import Code, Findings
from .literals import Literals
from .names import CONFIG
from .regex_syntax import BrokenRegexError, EndlessRegexError, RegexError, UnknownRegexError
from .regexes import Budget, Regex

_LITERAL = re.compile(r"\^?[A-Za-z0-9_.-]{1,512}")
_LAYER = re.compile(r"\.(\d{1,6})\.")
# How PEFT finds the number of a layer, without layers_pattern: the first after two names.
_LAYER_INDEX = re.compile(r".*?\.[^.]*\.(\d+)\.")
_LAYERS_PATTERN = re.compile(r"[A-Za-z0-9_.-]{0,64}")
# Neither Linear nor Conv1D, or the head: no part of what PEFT calls all-linear.
_NO_LINEAR = frozenset({"embed_tokens", "lm_head", "wte", "wpe", "word_embeddings", "embed_in", "embed_out"})
# To the package `regex`, with which vLLM matches, these mean "about like this" and classes of characters.
_OTHERWISE = re.compile(r"\{(?!\d*,?\d*\})|\[:")
_REGEXES_LIMIT = 256
# Characters of names that regexes step through, and that are cut at each dot for a list of targets. Of the largest
# models, with experts by the hundred, some 70 million are cut, which takes a fraction of a second.
_STEPS_LIMIT = 10_000_000
_CUTS_LIMIT = 200_000_000
_LAYERS_PATTERNS_LIMIT = 64

Value = TypeVar("Value")
# A list of names, a regex, or one that is not run.
_Names = frozenset[str] | Regex | Backtracking | None


def is_literal(key: str) -> bool:
    """Tell whether *key* can be compared without a regex engine."""
    return _LITERAL.fullmatch(key) is not None


class Lookup(Generic[Value]):
    """The keys of rank_pattern or alpha_pattern, looked up as PEFT's `get_pattern_key` does: the first wins."""

    def __init__(self, pattern: Mapping[str, Value], default: Value, budget: Budget | None = None) -> None:
        self._budget = budget or Budget()
        self._values = [*pattern.values(), default]
        self._literals = Literals()
        self._regexes: list[tuple[int, Regex]] = []
        self.refused: list[tuple[str, RegexError]] = []
        for position, key in enumerate(pattern):
            if is_literal(key):
                self._literals.add(key, position)
                continue
            try:
                self._regexes.append((position, self._regex(key)))
            except RegexError as error:
                self.refused.append((key, error))

    @property
    def regexes(self) -> int:
        """How many keys are regexes."""
        return len(self._regexes)

    @property
    def work(self) -> int:
        """How many characters of names were looked at for the other keys."""
        return self._literals.work

    def of(self, module: str) -> Value | None:
        """Return the value for *module*; None where a key that was refused may decide it."""
        if self.refused:
            return None
        if len(self._values) == 1:
            return self._values[0]
        try:
            first = self._literals.first(module)
        except RegexError as error:
            self.refused.append(("plain names", error))
            return None
        for position, regex in self._regexes:
            if first is not None and first < position:
                break
            try:
                matches = regex.match(module)
            except RegexError as error:
                self.refused.append((str(regex), error))
                return None
            if matches:
                first = position
                break
        return self._values[-1 if first is None else first]

    def _regex(self, key: str) -> Regex:
        if len(self._regexes) >= _REGEXES_LIMIT:
            raise EndlessRegexError(f"more than {_REGEXES_LIMIT} regexes")
        if _OTHERWISE.search(key):
            raise UnknownRegexError("vLLM's library for regexes reads it otherwise than Python's")
        # As both write it; a key may close the group before its end, so that the start of a name is enough.
        return Regex(rf"(.*\.)?({key})$", self._budget)


class Targets:
    """What target_modules, exclude_modules and layers_to_transform leave in."""

    def __init__(self, config: LoraConfig, budget: Budget) -> None:
        self._budget = budget
        self.refused: list[tuple[str, str, RegexError]] = []
        # PEFT's word for every linear layer but the head; any other text is a regex.
        targets = config.target_modules
        self._all_linear = isinstance(targets, str) and targets.lower() == "all-linear"
        self._targets = None if self._all_linear else self._names("target_modules", targets)
        self._excluded = self._names("exclude_modules", config.exclude_modules)
        self.regexes = sum(isinstance(names, Regex | Backtracking) for names in (self._targets, self._excluded))
        self.lists = sum(isinstance(names, frozenset) and bool(names) for names in (self._targets, self._excluded))
        layers = config.layers_to_transform
        self._layers = None if layers is None else frozenset(layers)
        self._layer_patterns = _layer_patterns(config.layers_pattern)
        if self._layer_patterns is None:
            error = UnknownRegexError("a regex, in which the layer's number is to be found")
            self.refused.append(("layers_pattern", ", ".join(config.layers_pattern), error))

    def has(self, module: str) -> bool | None:
        """Tell whether PEFT would put a LoRA on *module*; None where a regex that was refused decides."""
        excluded = self._matches("exclude_modules", self._excluded, module)
        if excluded is not False:
            return None if excluded is None else False
        if self._all_linear:
            return module.rpartition(".")[2] not in _NO_LINEAR
        targeted = self._matches("target_modules", self._targets, module)
        if not targeted or self._layers is None or not isinstance(self._targets, frozenset):
            return targeted
        # A full name counts in every layer; only a part of a name is narrowed by layers_to_transform. Of many names
        # PEFT takes the parts that are enough to tell them.
        if module in self._targets and len(self._targets) < CONDENSED:
            return True
        return self._is_in_layers(module)

    def among(self, others: Iterable[str]) -> list[str]:
        """Return those of *others*, which are no linear layers, that are meant all the same."""
        if self._all_linear:
            return []
        if isinstance(self._targets, frozenset):
            ends = {target[target.rfind(".") + 1 :] for target in self._targets}
            others = [name for name in others if name[name.rfind(".") + 1 :] in ends]
        return sorted(name for name in others if self.has(name))

    def _is_in_layers(self, module: str) -> bool | None:
        if self._layer_patterns is None or self._layers is None:
            return None
        found = next((match for pattern in self._layer_patterns if (match := pattern.match(module))), None)
        return found is not None and int(found[1]) in self._layers

    def _matches(self, name: str, names: _Names, module: str) -> bool | None:
        if names is None or any(name == refused for refused, _, _ in self.refused):
            return None
        if isinstance(names, frozenset):
            # Nearly all adapters name modules by their last part.
            return module[module.rfind(".") + 1 :] in names or not names.isdisjoint(_suffixes(module))
        try:
            return names.fullmatch(module)
        except RegexError as error:
            self.refused.append((name, str(names), error))
            return None

    def _names(self, name: str, value: tuple[str, ...] | str) -> _Names:
        if not isinstance(value, str):
            return frozenset(value)
        try:
            try:
                return Regex(value, self._budget)
            except UnknownRegexError:
                return Backtracking(value)
        except RegexError as error:
            self.refused.append((name, value, error))
            return None


class Patterns:
    """All that a config says of modules by their names."""

    def __init__(self, config: LoraConfig) -> None:
        budget = Budget()
        self.ranks = Lookup(config.rank_pattern, config.rank, budget)
        self.alphas = Lookup(config.alpha_pattern, config.lora_alpha, budget)
        self.targets = Targets(config, budget)

    def are_affordable(self, modules: Iterable[str], findings: Findings) -> bool:
        """Report what is there to keep a processor busy: each character of each module, for each regex and each dot."""
        names = list(modules)
        regexes = self.ranks.regexes + self.alphas.regexes + self.targets.regexes
        steps = sum(map(len, names)) * regexes
        cuts = sum(len(name) * name.count(".") for name in names) * self.targets.lists
        if steps <= _STEPS_LIMIT and cuts <= _CUTS_LIMIT:
            return True
        findings.error(
            Code.PATTERN_NOT_SUPPORTED,
            "target_modules",
            found=f"{regexes} regexes with those of rank_pattern and alpha_pattern, for {len(names)} modules",
            expected=f"at most {_STEPS_LIMIT} characters of names for all regexes, and names of some dots",
            fix="name modules by their last part where they share a rank",
        )
        return False

    def report(self, findings: Findings) -> None:
        """Report the regexes that are not run; to be called when all modules were asked for."""
        keys = [("rank_pattern", *refused) for refused in self.ranks.refused]
        keys += [("alpha_pattern", *refused) for refused in self.alphas.refused]
        for name, text, error in [*keys, *self.targets.refused]:
            if isinstance(error, BrokenRegexError):
                _report_broken(name, text, error, findings)
            elif isinstance(error, UnknownRegexError) and not name.endswith("_pattern"):
                findings.warning(
                    Code.NOT_CHECKED,
                    name,
                    found=f"a regex that is not run here ({error}): {text}",
                    expected="names, or a regex of fewer loops and branches",
                    fix="make sure that it names exactly the modules in the file, or write a list of their names",
                )
            else:
                findings.error(
                    Code.PATTERN_NOT_SUPPORTED,
                    name,
                    found=f"{text} ({error})",
                    expected="names, or a regex that surely ends (PEFT runs it, and may never answer)",
                    fix="write the modules' names",
                )


def layer_of(module: str) -> int | None:
    """Return the number of the layer that *module* is in."""
    found = _LAYER.search(module)
    return int(found[1]) if found else None


def layer_position(module: str) -> int | None:
    """Return where in the name of *module* the number of its layer stands, from the dot on."""
    found = _LAYER.search(module)
    return found.start() if found else None


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
    if len(names) > _LAYERS_PATTERNS_LIMIT or not all(_LAYERS_PATTERN.fullmatch(name) for name in names):
        return None
    return [re.compile(rf"(?:^|.*?\.){name}\.(\d+)\.") for name in names]


def _suffixes(module: str) -> Iterator[str]:
    """Yield *module* and every end of it that begins after a dot."""
    yield module
    position = module.find(".")
    while position >= 0:
        yield module[position + 1 :]
        position = module.find(".", position + 1)
