"""Is the library right? Every adapter of the corpus that a real vLLM can be asked about is loaded into one.

Slow (an engine for each poisonous one): `make judge`, which also writes docs/judge.md. With `-k` a part of it; with
JUDGE_RESUME=1, after a change of rules, neither is asked again about adapters whose files are those of an earlier run.
"""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from support.adapter_corpus import Case
from support.judge import CASES, Court, table

pytestmark = pytest.mark.timeout(1800)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_the_library_says_what_vllm_and_peft_do(case: Case, court: Court) -> None:
    ruling = court.hear(case)
    table.record(ruling, on=datetime.now(UTC).date())
    assert ruling.agrees, str(ruling)
