"""The corpus, at both levels: what the verdict on each case must be, and the findings that it must give."""

from pathlib import Path

import pytest

from lora_operator import adapter
from lora_operator.adapter import Verdict
from support.adapter_corpus import BAD, CASES, GOOD, Case


def verdict(case: Case, opened: adapter.Adapter) -> Verdict:
    return adapter.inspect(opened, adapter.base_from_config(case.base.config()), case.engine)


def check(case: Case, found: Verdict, *, known: bool) -> None:
    """Hold the verdict to the case; *known* where this level can see what is wrong."""
    assert found.servable is (case.servable or not known), found.findings
    if case.servable:
        assert {finding.code for finding in found.findings} == case.codes, found.findings
    elif known:
        assert case.codes <= {finding.code for finding in found.errors}, found.findings
        assert found.compatible == "False"
        assert any(code.value in found.message() for code in case.codes)
    assert len(found.message().encode()) <= 4096
    assert len(found.message()) <= 1024


@pytest.mark.timeout(120)
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_each_case_is_judged_as_it_must_be_at_both_levels(case: Case, tmp_path: Path) -> None:
    folder = case.write(tmp_path / "adapter")
    header = adapter.open_directory(folder, level="header")
    check(case, verdict(case, header), known=case.level == "header")
    full = adapter.open_directory(folder, level="full")
    check(case, verdict(case, full), known=True)
    if case.files is not None:
        check(case, verdict(case, case.files().parts()), known=case.level == "header")


def test_names_are_unique() -> None:
    names = [case.name for case in CASES]
    assert len(set(names)) == len(names)


def test_the_corpus_has_both_kinds() -> None:
    assert all(case.servable for case in GOOD)
    assert not any(case.servable for case in BAD)
    assert all(case.codes for case in BAD)
    assert not any(case.poisonous for case in GOOD)
