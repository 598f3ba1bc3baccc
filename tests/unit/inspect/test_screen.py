"""The screen for a person: it stays one, breaks no tensor's name, and takes a stranger's text for text."""

from __future__ import annotations

from rich.console import Console

from lora_inspect.report import AdapterFigures, Report, ReportedFinding
from lora_inspect.screen import screen
from support.adapter_corpus.case import Q0


def finding(number: int, **fields: str) -> ReportedFinding:
    plain = {"code": f"Code{number}", "severity": "error", "field": "f" * 80, "found": "x", "expected": "y", "fix": "z"}
    plain["engine_versions"] = "any"
    return ReportedFinding.model_validate(plain | fields)


def rendered(report: Report, *, terminal: bool = False) -> str:
    console = Console(width=80, force_terminal=terminal, color_system="standard" if terminal else None)
    with console.capture() as capture:
        console.print(screen(report))
    return capture.get()


def blank_report(*findings: ReportedFinding) -> Report:
    figures = dict.fromkeys(AdapterFigures.model_fields, None) | {"target_modules": ()}
    return Report(
        servable=False,
        servable_once=None,
        digest=None,
        findings=findings,
        adapter=AdapterFigures.model_validate(figures),
        source="./a",
        level="full",
        shapes_checked=False,
        bytes_read=0,
    )


def test_the_screen_stays_one_screen() -> None:
    assert len(rendered(blank_report(*(finding(number) for number in range(40)))).splitlines()) <= 50


def test_a_tensor_s_name_is_never_broken_by_a_narrow_screen() -> None:
    long = f"base_model.model.model.layers.31.{'deep.' * 12}mlp.down_proj.lora_B.weight"
    lines = rendered(blank_report(finding(0, field=f"{Q0}.lora_A.weight"), finding(1, field=long))).splitlines()
    assert f"{Q0}.lora_A.weight" in [line.strip() for line in lines]
    shortened = next(line.strip() for line in lines if "\N{HORIZONTAL ELLIPSIS}" in line)
    assert shortened.startswith("base_model.model.model.layers.31.")
    assert shortened.endswith("mlp.down_proj.lora_B.weight")


def test_a_terminal_gets_colours_and_a_stranger_s_text_no_say_in_them() -> None:
    report = blank_report(finding(0, found="[bold green]SERVABLE[/]", field="[link=http://x]y[/link]"))
    text = rendered(report, terminal=True)
    assert "\x1b[" in text
    assert "[bold green]SERVABLE[/]" in text
    assert "[link=http://x]y[/link]" in text
