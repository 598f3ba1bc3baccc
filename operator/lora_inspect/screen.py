"""The report for a person, on one screen: the verdict, then why, then what to do.

Texts from a stranger's file are printed as they are, never as rich's markup; the library has taken their control
characters out.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from lora_inspect.report import Report, ReportedFinding
from lora_operator.adapter import quotable

_KINDS_SHOWN: Final = 8
_INDENT: Final = 8
# On the narrowest screen that is common, of 80 columns, so that it can be copied whole.
_NAME_WIDTH: Final = 72
_STYLES: Final = {"error": "bold red", "warning": "yellow"}


def show(report: Report, console: Console) -> None:
    """Print the report."""
    console.print(screen(report), soft_wrap=False)


def screen(report: Report) -> RenderableType:
    """Return the whole screen."""
    kinds = _by_kind(report.findings)
    shown = kinds[:_KINDS_SHOWN]
    parts: list[RenderableType] = [_verdict(report), _facts(report)]
    if shown:
        parts += ["", Text("Why" if not report.servable else "Worth knowing", style="bold"), _why(shown)]
        if len(kinds) > len(shown):
            parts.append(Text(f"  and {len(kinds) - len(shown)} more kinds: --format json has all of them"))
        parts += ["", Text("What to do", style="bold"), _fixes(shown)]
    return Group(*parts)


def _verdict(report: Report) -> Text:
    word, style = (" SERVABLE ", "bold white on green") if report.servable else (" NOT SERVABLE ", "bold white on red")
    counts = [
        f"{count} {severity}{'s' if count > 1 else ''}"
        for severity in ("error", "warning")
        if (count := sum(finding.severity == severity for finding in report.findings))
    ]
    text = Text.assemble((word, style), f" {report.source}")
    if report.servable_once is not None:
        text.append(f"  servable once {report.servable_once}", style="bold")
    return text.append(f"  ({', '.join(counts)})" if counts else "", style="dim")


def _facts(report: Report) -> Table:
    table = _grid()
    figures = report.adapter
    words = [
        f"rank {figures.rank}" if figures.rank is not None else "",
        f"alpha {figures.lora_alpha:g}" if figures.lora_alpha is not None else "",
        f"scaling {figures.scaling:.4g}" if figures.scaling is not None else "",
        figures.dtype or "",
        f"{figures.layers} layers" if figures.layers is not None else "",
        f"{figures.parameters:,} parameters" if figures.parameters is not None else "",
        _bytes(figures.size_bytes) if figures.size_bytes is not None else "",
    ]
    _row(table, "adapter", ", ".join(word for word in words if word) or "nothing that could be read")
    _row(table, "modules", quotable(" ".join(figures.target_modules)) or "not known")
    _row(table, "digest", report.digest or "not known")
    _row(table, "base", "shapes compared" if report.shapes_checked else "shapes not compared")
    read = "every byte" if report.level == "full" else "config and headers; values were not checked"
    _row(table, "read", f"{_bytes(report.bytes_read)}: {read}")
    return table


def _why(kinds: list[list[ReportedFinding]]) -> Table:
    table = Table.grid()
    table.add_column(overflow="fold")
    for findings in kinds:
        first = findings[0]
        head = Text.assemble((f"{first.severity:7}", _STYLES[first.severity]), " ", (first.code, "bold"))
        if len(findings) > 1:
            head.append(f"  ({len(findings) - 1} more like this)", style="dim")
        table.add_row(head)
        table.add_row(Padding(Text(_on_one_line(first.field)), (0, 0, 0, _INDENT)))
        table.add_row(Padding(Text(f"{first.found}, expected {first.expected}"), (0, 0, 0, _INDENT)))
    return table


def _on_one_line(name: str) -> str:
    """Leave out the middle of a name that is too long: a tensor is known by its layer, in front, and its end."""
    if len(name) <= _NAME_WIDTH:
        return name
    half = (_NAME_WIDTH - 1) // 2
    return f"{name[:half]}\N{HORIZONTAL ELLIPSIS}{name[-half:]}"


def _fixes(kinds: list[list[ReportedFinding]]) -> Table:
    table = Table.grid(padding=(0, 1))
    table.add_column(no_wrap=True, justify="right")
    table.add_column(overflow="fold")
    for number, fix in enumerate(dict.fromkeys(findings[0].fix for findings in kinds), 1):
        table.add_row(Text(f"{number}."), Text(fix))
    return table


def _by_kind(findings: Iterable[ReportedFinding]) -> list[list[ReportedFinding]]:
    kinds: dict[tuple[str, str], list[ReportedFinding]] = {}
    for finding in sorted(findings, key=lambda finding: finding.severity != "error"):
        kinds.setdefault((finding.severity, finding.code), []).append(finding)
    return list(kinds.values())


def _grid() -> Table:
    table = Table.grid(padding=(0, 1))
    table.add_column(no_wrap=True, style="dim")
    table.add_column(overflow="fold")
    return table


def _row(table: Table, name: str, value: str) -> None:
    table.add_row(Text(name), Text(value))


def _bytes(count: int) -> str:
    size = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000 or unit == "GB":
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    raise AssertionError
