"""What the library answers with: findings, each with a stable code, and the verdict made of them.

Every other module of this package reports into a `Findings` collector; `inspection.inspect` turns it into a `Verdict`.
The codes are a contract: the operator uses them as condition reasons and Event reasons.
"""

import enum
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

# The vLLM versions whose LoRA code the rules of this package were read from.
OLDEST_ENGINE, NEWEST_ENGINE = (0, 32), (0, 33)
KNOWN_ENGINES = "vLLM 0.32 to 0.33"
MESSAGE_LIMIT = 1024
TEXT_LIMIT = 200
# A hostile or merely broken file can be wrong in 100,000 places; a person reads the first few.
FINDINGS_PER_CODE = 16


class Severity(enum.StrEnum):
    """How much a finding weighs: one error is enough not to serve."""

    ERROR = "error"
    WARNING = "warning"


class Code(enum.StrEnum):
    """What can be wrong with an adapter. A code keeps its meaning for good."""

    # The files
    MISSING_CONFIG = "MissingConfig"
    MISSING_FILE = "MissingFile"
    PICKLE_ONLY = "PickleOnly"
    SHARDED_WEIGHTS = "ShardedWeights"
    NOT_A_REGULAR_FILE = "NotARegularFile"
    FILE_CHANGED = "FileChanged"
    DIGEST_MISMATCH = "DigestMismatch"
    # adapter_config.json
    MALFORMED_CONFIG = "MalformedConfig"
    UNSUPPORTED_VARIANT = "UnsupportedVariant"
    DORA_NOT_SUPPORTED = "DoRANotSupported"
    BIAS_NOT_SUPPORTED = "BiasNotSupported"
    MODULES_TO_SAVE_NOT_SUPPORTED = "ModulesToSaveNotSupported"
    INIT_NOT_SUPPORTED = "InitNotSupported"
    RANK_TOO_HIGH = "RankTooHigh"
    PATTERN_NOT_SUPPORTED = "PatternNotSupported"
    UNKNOWN_FIELD = "UnknownField"
    # The weights
    TRUNCATED_FILE = "TruncatedFile"
    MALFORMED_HEADER = "MalformedHeader"
    MALFORMED_INDEX = "MalformedIndex"
    NO_TENSORS = "NoTensors"
    UNSUPPORTED_DTYPE = "UnsupportedDtype"
    UNKNOWN_TENSOR = "UnknownTensor"
    UNPAIRED_TENSOR = "UnpairedTensor"
    RANK_MISMATCH = "RankMismatch"
    NOT_TARGETED = "NotTargeted"
    MISSING_TENSOR = "MissingTensor"
    NOT_FINITE = "NotFinite"
    VALUE_TOO_LARGE = "ValueTooLarge"
    # Against the base and the engine
    UNKNOWN_MODULE = "UnknownModule"
    LAYER_OUT_OF_RANGE = "LayerOutOfRange"
    SHAPE_MISMATCH = "ShapeMismatch"
    MODULE_NOT_SERVED = "ModuleNotServed"
    ARCHITECTURE_NOT_SUPPORTED = "ArchitectureNotSupported"
    LM_HEAD_NOT_SUPPORTED = "LmHeadNotSupported"
    BASE_MISMATCH = "BaseMismatch"
    BASE_NOT_READABLE = "BaseNotReadable"
    UNKNOWN_ENGINE = "UnknownEngine"
    NOT_CHECKED = "NotChecked"


OWN_BASE = "serve it on the base it was trained on"

# They follow from the files, from PEFT or from numbers, whatever vLLM it is.
_OF_ANY_ENGINE = frozenset(
    {
        Code.MISSING_CONFIG, Code.MISSING_FILE, Code.PICKLE_ONLY, Code.NOT_A_REGULAR_FILE, Code.FILE_CHANGED,
        Code.DIGEST_MISMATCH, Code.MALFORMED_CONFIG, Code.MALFORMED_HEADER, Code.MALFORMED_INDEX, Code.TRUNCATED_FILE,
        Code.RANK_TOO_HIGH, Code.PATTERN_NOT_SUPPORTED, Code.UNKNOWN_FIELD, Code.NO_TENSORS, Code.RANK_MISMATCH,
        Code.NOT_TARGETED, Code.MISSING_TENSOR, Code.NOT_FINITE, Code.VALUE_TOO_LARGE, Code.LAYER_OUT_OF_RANGE,
        Code.SHAPE_MISMATCH, Code.BASE_MISMATCH, Code.BASE_NOT_READABLE, Code.UNKNOWN_ENGINE, Code.NOT_CHECKED,
    }
)  # fmt: skip

# What makes an adapter no plain LoRA, and what can be made of it all the same.
_CONVERTIBLE = frozenset({Code.INIT_NOT_SUPPORTED})
_MERGEABLE = frozenset(
    {Code.DORA_NOT_SUPPORTED, Code.BIAS_NOT_SUPPORTED, Code.MODULES_TO_SAVE_NOT_SUPPORTED, Code.LM_HEAD_NOT_SUPPORTED,
     Code.ARCHITECTURE_NOT_SUPPORTED, Code.RANK_TOO_HIGH}
)  # fmt: skip

# These say that something could not be looked at, not that it is wrong.
_UNKNOWING = frozenset({Code.BASE_NOT_READABLE, Code.NOT_CHECKED})


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing found: where, what, what it should be, and what to do about it."""

    code: Code
    severity: Severity
    field: str
    found: str
    expected: str
    fix: str

    @property
    def engine_versions(self) -> str:
        """The vLLM versions that it holds for: all, or those whose code was read for it."""
        return "any" if self.code in _OF_ANY_ENGINE else KNOWN_ENGINES

    def __str__(self) -> str:
        return f"{self.code} ({self.field}): {self.found}, expected {self.expected}. To fix: {self.fix}."


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """The adapter in figures; None where it could not be read."""

    rank: int | None = None
    lora_alpha: float | None = None
    scaling: float | None = None
    target_modules: tuple[str, ...] = ()
    dtype: str | None = None
    layers: int | None = None
    parameters: int | None = None
    size_bytes: int | None = None
    digest: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """May the engine be given this adapter? With every reason why not."""

    servable: bool
    findings: tuple[Finding, ...]
    summary: Summary
    shapes_checked: bool

    @property
    def errors(self) -> tuple[Finding, ...]:
        """The findings that forbid serving."""
        return tuple(finding for finding in self.findings if finding.severity is Severity.ERROR)

    @property
    def compatible(self) -> Literal["True", "False", "Unknown"]:
        """The status of a Compatible condition: Unknown where nothing is wrong but something could not be looked at."""
        if self.servable:
            return "True"
        return "Unknown" if all(finding.code in _UNKNOWING for finding in self.errors) else "False"

    @property
    def servable_once(self) -> Literal["converted", "merged"] | None:
        """What makes it servable, where that is no new training: converting it to a plain LoRA, or merging it.

        None where it is servable as it is, or wrong in a way that neither changes.
        """
        codes = {finding.code for finding in self.errors}
        if not codes:
            return None
        if codes <= _CONVERTIBLE and not any(_is_final(finding) for finding in self.errors):
            return "converted"
        return "merged" if codes <= _MERGEABLE else None

    @property
    def reason(self) -> str:
        """The reason of a condition: the code of the first thing that is wrong, before what could not be looked at."""
        errors = self._ordered_errors()
        return errors[0].code.value if errors else "Servable"

    def message(self) -> str:
        """Say it to a person in one paragraph, at most 1,024 characters: one example of each code."""
        shown = self.findings if self.servable else self._ordered_errors()
        counts = Counter(finding.code for finding in shown)
        examples = {finding.code: finding for finding in reversed(shown)}
        sentences = [
            str(examples[code]) + (f" ({count} like this.)" if count > 1 else "") for code, count in counts.items()
        ]
        return _shorten(
            " ".join(["The adapter can be served.", *sentences] if self.servable else sentences), MESSAGE_LIMIT
        )

    def advising(self, fixes: Mapping[Code, str], *, own_base: str) -> "Verdict":
        """Return it with other advice, for whoever does something else with the adapter than serve it.

        *own_base* is what to do where it is one of another base; *fixes* are for some codes.
        """

        def fix(finding: Finding) -> str:
            return fixes.get(finding.code) or (own_base if finding.fix.startswith(OWN_BASE) else finding.fix)

        return replace(self, findings=tuple(replace(finding, fix=fix(finding)) for finding in self.findings))

    def _ordered_errors(self) -> tuple[Finding, ...]:
        return tuple(sorted(self.errors, key=lambda finding: finding.code in _UNKNOWING))


@dataclass(slots=True)
class Findings:
    """Collects findings, the first few of each code; the rest are counted."""

    _kept: list[Finding] = field(default_factory=list)
    _counts: Counter[Code] = field(default_factory=Counter)

    def error(self, code: Code, where: str, *, found: object, expected: str, fix: str) -> None:
        """Report something that forbids serving."""
        self._add(code, Severity.ERROR, (where, found, expected, fix))

    def warning(self, code: Code, where: str, *, found: object, expected: str, fix: str) -> None:
        """Report something that a person should know."""
        self._add(code, Severity.WARNING, (where, found, expected, fix))

    def add_all(self, findings: tuple[Finding, ...]) -> None:
        """Take over what another part has already found."""
        for finding in findings:
            self._counts[finding.code] += 1
            self._kept.append(finding)

    def has(self, *codes: Code) -> bool:
        """Tell whether one of *codes* was reported."""
        return any(self._counts[code] for code in codes)

    def all(self) -> tuple[Finding, ...]:
        """Return the findings in the order they were made, those left out as a count on the last of their code."""
        left_out = {code: count - FINDINGS_PER_CODE for code, count in self._counts.items()}
        kept = list(self._kept)
        last = {finding.code: index for index, finding in enumerate(kept)}
        for code, count in left_out.items():
            if count > 0:
                kept[last[code]] = _with_more(kept[last[code]], count)
        return tuple(kept)

    def _add(self, code: Code, severity: Severity, texts: tuple[str, object, str, str]) -> None:
        self._counts[code] += 1
        if self._counts[code] > FINDINGS_PER_CODE:
            return
        where, found, expected, fix = (quotable(text) for text in texts)
        self._kept.append(Finding(code=code, severity=severity, field=where, found=found, expected=expected, fix=fix))


def _is_final(finding: Finding) -> bool:
    """Tell LoftQ from the other inits that change the base: its base was quantised, and nobody kept the rest."""
    return "loftq" in finding.found.lower()


def quotable(value: object) -> str:
    """Make a short text of *value*, without control characters or surrogates: safe in JSON, a log, a condition."""
    text = value if isinstance(value, str) else repr_bounded(value)
    text = _shorten(text, TEXT_LIMIT * 2)
    clean = "".join(
        character if character.isprintable() else character.encode("unicode_escape", "surrogatepass").decode("ascii")
        for character in text
    )
    return _shorten(clean, TEXT_LIMIT)


def has_surrogate(text: str) -> bool:
    """Tell whether half a surrogate pair is in *text*, which no encoding writes and which hangs vLLM."""
    return not text.isascii() and any("\ud800" <= character <= "\udfff" for character in text)


def repr_bounded(value: object) -> str:
    """Show a value from JSON without ever writing out something huge."""
    match value:
        case bool() | None:
            return {True: "true", False: "false", None: "null"}[value]
        case int() if value.bit_length() > 256:
            return f"an integer of {value.bit_length()} bits"
        case int() | float():
            return repr(value)
        case str():
            return f'"{_shorten(value, TEXT_LIMIT)}"'
        case dict():
            return f"an object with {len(value)} keys"
        case list() | tuple() | set() | frozenset() if all(isinstance(item, str | int | float) for item in value):
            items = [repr_bounded(item) for item, _ in zip(value, range(8), strict=False)]
            return f"[{', '.join(items)}{', ...' if len(value) > 8 else ''}]"
        case list() | tuple():
            return f"a list of {len(value)} items"
        case _:
            return type(value).__name__


def _with_more(finding: Finding, count: int) -> Finding:
    return Finding(
        code=finding.code,
        severity=finding.severity,
        field=finding.field,
        found=f"{finding.found} (and {count} more of this kind)",
        expected=finding.expected,
        fix=finding.fix,
    )


def _shorten(text: str, limit: int) -> str:
    return text if len(text) <= limit else f"{text[: limit - 3]}..."
