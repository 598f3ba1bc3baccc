"""An operator that is killed before and after a write of the main flow comes back and ends where it would have.

The writes are those of a run without a kill. Around each of them another run kills its operator twice: before the write
reaches the apiserver, and in the next life before its answer comes back. Several runs go side by side, for most of a
run is waiting. The table that is printed has what each came to.
"""

from __future__ import annotations

import difflib
import json
import os
import secrets
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import pytest

from support.crashing import Ground, Outcome, Run
from support.fault_proxy import CrashPoint, Moment

AT_ONCE = int(os.environ.get("LORA_FAULTS_AT_ONCE", "6"))
ENDS = ("Serving", "Training", "Published", "Loaded")
"""The reasons that a run waits for. Whether a status passes through others depends on how fast things are."""


@dataclass(frozen=True)
class Verdict:
    """What a run came to; no faults where it came to what the reference did."""

    crash: CrashPoint
    kills: tuple[Moment, ...] = ()
    writes: int = 0
    faults: tuple[str, ...] = ()

    def __str__(self) -> str:
        came = "converged" if not self.faults else f"FAULTS: {'; '.join(fault[:600] for fault in self.faults)}"
        return f"{self.crash!s:56} {', '.join(self.kills) or 'not passed through':20} {self.writes:4}  {came}"


@pytest.fixture(scope="module")
def reference(ground: Ground) -> Outcome:
    """Return what the main flow comes to when nobody is killed."""
    return Run(ground, "faults-reference").play()


def test_the_main_flow_makes_everything_once_and_warns_of_nothing(reference: Outcome) -> None:
    made = reference.created

    assert [write for write in reference.writes if write.status >= 400] == []
    assert {what for what, count in made.items() if count > 1} == {"apply configmaps/llama-lora"}, "its eight shards"
    assert not reference.warnings


@pytest.mark.timeout(3600)
def test_a_kill_around_any_write_changes_nothing_in_the_end(
    ground: Ground, reference: Outcome, capsys: pytest.CaptureFixture[str]
) -> None:
    points = [CrashPoint(write.what, write.nth) for write in reference.writes]
    verdicts: list[Verdict] = []

    with ThreadPoolExecutor(AT_ONCE) as pool, capsys.disabled():
        print(f"\n{'the write':56} {'killed':20} writes of {len(points)}")
        for verdict in pool.map(lambda point: _judge(ground, point, reference), points):
            print(verdict, flush=True)
            verdicts.append(verdict)

    assert [verdict for verdict in verdicts if verdict.faults] == []


def _judge(ground: Ground, crash: CrashPoint, reference: Outcome) -> Verdict:
    """Play the flow with kills around one write, and compare it with the reference."""
    try:
        outcome = Run(ground, f"faults-{secrets.token_hex(4)}", crash).play()
    except (TimeoutError, RuntimeError) as error:
        return Verdict(crash, faults=(str(error),))
    asked_more = outcome.engine_calls - reference.engine_calls
    faults = [
        *_differences("served", reference.served, outcome.served),
        *_differences("left", reference.left, outcome.left),
        *(f"made {count} times more: {what}" for what, count in (outcome.created - reference.created).items()),
        *(f"asked {count} times more: {path}" for path, count in asked_more.items()),
        *(f"warned: {reason}" for reason in outcome.warnings),
    ]
    if len(outcome.writes) > 2 * len(reference.writes):
        faults.append(f"more writes than twice the {len(reference.writes)} without a kill")
    if outcome.kills != ("before", "after") and not _may_be_passed_over(crash):
        faults.append("the write did not come twice")
    return Verdict(crash, outcome.kills, len(outcome.writes), tuple(faults))


def _may_be_passed_over(crash: CrashPoint) -> bool:
    """Tell of a status on the way, or of an end that is told again: two changes at once are one write."""
    return "/status " in crash.what and (crash.nth > 1 or not crash.what.endswith(ENDS))


def _differences(when: str, wanted: object, got: object) -> list[str]:
    before, after = (json.dumps(value, indent=1, sort_keys=True).splitlines() for value in (wanted, got))
    told = list(difflib.unified_diff(before, after, lineterm="", n=2))
    return ["\n".join([f"{when} differs:", *told])] if told else []
