"""The report as JUnit XML, which every CI system shows: one test case a finding, or one that nothing was found."""

from __future__ import annotations

from xml.etree import ElementTree as ET

from lora_inspect.report import Report, ReportedFinding

_SUITE = "lora-inspect"


def junit(report: Report) -> str:
    """Return the XML of a verdict: a failure for each error; a warning passes, with its text."""
    errors = [finding for finding in report.findings if finding.severity == "error"]
    cases = list(report.findings)
    suite = _suite(report.source, tests=len(cases) or 1, failures=len(errors), errors=0)
    if not cases:
        ET.SubElement(suite, "testcase", classname=report.source, name="servable")
    for finding in cases:
        case = ET.SubElement(suite, "testcase", classname=report.source, name=f"{finding.code} {finding.field}")
        if finding.severity == "error":
            ET.SubElement(case, "failure", type=finding.code, message=_sentence(finding)).text = _text(finding)
        else:
            ET.SubElement(case, "system-out").text = _text(finding)
    return _xml(suite)


def junit_cannot_tell(source: str, reason: str) -> str:
    """Return the XML of a question without an answer: an error, which is no failure."""
    suite = _suite(source, tests=1, failures=0, errors=1)
    case = ET.SubElement(suite, "testcase", classname=source, name="could not tell")
    ET.SubElement(case, "error", type="CouldNotTell", message=reason).text = reason
    return _xml(suite)


def _suite(source: str, *, tests: int, failures: int, errors: int) -> ET.Element:
    figures = {"tests": str(tests), "failures": str(failures), "errors": str(errors)}
    return ET.Element("testsuite", {"name": f"{_SUITE} {source}", **figures})


def _sentence(finding: ReportedFinding) -> str:
    return f"{finding.field}: {finding.found}, expected {finding.expected}"


def _text(finding: ReportedFinding) -> str:
    return f"{_sentence(finding)}\nTo fix: {finding.fix}"


def _xml(suite: ET.Element) -> str:
    root = ET.Element("testsuites", {key: value for key, value in suite.attrib.items() if key != "name"})
    root.append(suite)
    ET.indent(root)
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{ET.tostring(root, encoding="unicode")}\n'
