"""What `--format json` prints, and what the other formats are made of: one value, versioned. Pure.

Its schema is `docs/protocol/inspection.schema.json`.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from lora_operator.adapter import Adapter, Verdict
from lora_operator.protocol.manifest import Wire


class ReportedFinding(Wire):
    """One thing found. `code` keeps its meaning for good; docs/adapters.md has a row for each."""

    code: str
    severity: Literal["error", "warning"]
    field: str
    found: str
    expected: str
    fix: str
    engine_versions: str
    """The engine's versions that it holds for, or `any`."""


class AdapterFigures(Wire):
    """The adapter in figures; null where it could not be read."""

    rank: int | None
    lora_alpha: float | None
    scaling: float | None
    target_modules: tuple[str, ...]
    dtype: str | None
    layers: int | None
    parameters: int | None
    size_bytes: int | None


class Report(Wire):
    """The answer of `lora-inspect --format json`."""

    version: Literal[1] = 1
    servable: bool
    """True where no finding is an error."""
    servable_once: Literal["converted", "merged"] | None
    """What would make it servable without new training: converting it to a plain LoRA, or merging it into the base."""
    digest: str | None
    """`sha256:...` as in docs/adapters.md; null where a file's sha256 is not known."""
    findings: tuple[ReportedFinding, ...]
    adapter: AdapterFigures
    source: str
    """What was asked about, as given."""
    level: Literal["config", "header", "full"]
    """How much was read: only at `full` is every value looked at."""
    shapes_checked: bool
    """Whether tensors were compared with the base's shapes."""
    bytes_read: int = Field(ge=0)
    """Of the adapter's and the base's files; from a Hub, what came over the network of them."""


def report(verdict: Verdict, adapter: Adapter, *, source: str, bytes_read: int) -> Report:
    """Make the report of a verdict."""
    summary = verdict.summary
    return Report(
        servable=verdict.servable,
        servable_once=verdict.servable_once,
        digest=summary.digest,
        findings=tuple(
            ReportedFinding(
                code=finding.code.value,
                severity=finding.severity.value,
                field=finding.field,
                found=finding.found,
                expected=finding.expected,
                fix=finding.fix,
                engine_versions=finding.engine_versions,
            )
            for finding in verdict.findings
        ),
        adapter=AdapterFigures(
            rank=summary.rank,
            lora_alpha=summary.lora_alpha,
            scaling=summary.scaling,
            target_modules=summary.target_modules,
            dtype=summary.dtype,
            layers=summary.layers,
            parameters=summary.parameters,
            size_bytes=summary.size_bytes,
        ),
        source=source,
        level=adapter.level,
        shapes_checked=verdict.shapes_checked,
        bytes_read=bytes_read,
    )
