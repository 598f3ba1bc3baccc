"""One court for the whole run; at its end what was heard is written to docs/judge.md."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from support.judge import CASES, Court, table


@pytest.fixture(scope="session")
def court(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Court]:
    """Return a court to which PEFT has said what it makes of the selected cases."""
    items = [item for item in request.session.items if isinstance(item, pytest.Function)]
    selected = {item.callspec.params["case"].name for item in items}  # an id has its backslashes twice
    resumes = bool(os.environ.get("JUDGE_RESUME"))
    if len(selected) == len(CASES) and not resumes:
        table.RECORD.unlink(missing_ok=True)
    known = (table.heard_before(), table.heard_of_peft_before()) if resumes else ()
    court = Court(tmp_path_factory.mktemp("court"), *known)
    try:
        court.hear_peft([case for case in CASES if case.name in selected])
        yield court
    finally:
        court.close()
    table.write([case.name for case in CASES])
