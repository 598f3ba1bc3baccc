"""Judging the judge: what a real vLLM and PEFT make of an adapter, held against what the adapter library says of it.

    court = Court(folder); court.hear_peft(cases)
    ruling = court.hear(case)      # ruling.agrees, and how each of the three found it

`make judge` asks about the whole corpus and writes docs/judge.md; `tests/e2e/test_judge.py` asks about a few.
"""

from support.judge.court import CASES, Court, content_of, is_askable
from support.judge.rulings import Outcome, Ruling, Spoken

__all__ = ["CASES", "Court", "Outcome", "Ruling", "Spoken", "content_of", "is_askable"]
