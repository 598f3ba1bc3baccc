"""The verdict, with what only a person may decide: to let shapes go unchecked, and to insist on a base's name. Pure."""

from __future__ import annotations

from dataclasses import replace

from lora_inspect.question import Question
from lora_operator.adapter import Adapter, Base, Code, Finding, Severity, Verdict, inspect

_NO_BASE = "give --base: a directory, its config.json, or hf://org/name; or --unknown-shapes allow"


def judge(question: Question, adapter: Adapter, base: Base | None) -> Verdict:
    """Ask the adapter library; a base of another name is refused, unknown shapes are if the question says so."""
    verdict = inspect(adapter, base, question.engine, base_name=question.base_name, name_decides=True)
    findings = tuple(_settled(finding, question) for finding in verdict.findings)
    servable = not any(finding.severity is Severity.ERROR for finding in findings)
    return replace(verdict, findings=findings, servable=servable)


def _settled(finding: Finding, question: Question) -> Finding:
    """Let a base go unread where the question allows it; say how to name one where it names none."""
    if finding.code is not Code.BASE_NOT_READABLE:
        return finding
    severity = Severity.WARNING if question.unknown_shapes == "allow" else finding.severity
    fix = finding.fix if question.base is not None else _NO_BASE
    return replace(finding, severity=severity, fix=fix)
