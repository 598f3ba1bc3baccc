"""The engine's lives as the agent sees them, and when the pod is ready."""

from __future__ import annotations

import pytest

from lora_agent import life as lives
from lora_agent.engine import Health, View
from lora_agent.life import Life
from lora_agent.readiness import is_ready

A, AB = frozenset({"a"}), frozenset({"a", "b"})


def view(*names: str) -> View:
    return View(health=Health.UP, adapters={name: f"/adapters/{name}" for name in names})


DOWN, SILENT, UNLISTED = (View(health=health) for health in (Health.DOWN, Health.SILENT, Health.UNLISTED))


@pytest.mark.parametrize(
    ("before", "seen", "after"),
    [
        pytest.param(Life(), view(), Life(healthy_since=50), id="the first healthy answer"),
        pytest.param(Life(healthy_since=10), view(), Life(healthy_since=10), id="and it stays the first"),
        pytest.param(Life(), UNLISTED, Life(healthy_since=50), id="healthy is enough, whatever it tells of its models"),
        pytest.param(
            Life(healthy_since=10, answered=AB), UNLISTED, Life(healthy_since=10, answered=AB), id="untold is not gone"
        ),
        pytest.param(Life(refill=AB), UNLISTED, Life(healthy_since=50, refill=AB), id="up again, and untold"),
        pytest.param(Life(healthy_since=90), view(), Life(healthy_since=50), id="a clock that went back"),
        pytest.param(
            Life(healthy_since=10, answered=AB, loads=2), DOWN, Life(refill=AB), id="down: all is to be refilled"
        ),
        pytest.param(Life(refill=AB), DOWN, Life(refill=AB), id="still down"),
        pytest.param(Life(refill=AB), view(), Life(healthy_since=50, refill=AB), id="up again, empty"),
        pytest.param(
            Life(healthy_since=10, answered=AB), view(), Life(healthy_since=50, refill=AB), id="forgot all: a restart"
        ),
        pytest.param(
            Life(healthy_since=10, answered=AB),
            view("a"),
            Life(healthy_since=10, answered=A),
            id="one is gone: by hand",
        ),
        pytest.param(
            Life(healthy_since=10, answered=AB), SILENT, Life(healthy_since=10, answered=AB), id="silent: who knows"
        ),
    ],
)
def test_a_look_at_the_engine_gives_its_next_life(before: Life, seen: View, after: Life) -> None:
    assert lives.after(before, seen, wanted=AB, now=50) == after


def test_an_engine_that_lost_only_what_nobody_wants_was_not_restarted() -> None:
    life = Life(healthy_since=10, answered=A)
    assert lives.after(life, view(), wanted=frozenset(), now=50) == Life(healthy_since=10)


def test_an_answer_ends_the_refill_of_its_adapter() -> None:
    life = lives.answered(lives.loaded(Life(healthy_since=1, refill=AB)), "a")
    assert life == Life(healthy_since=1, answered=A, refill=frozenset({"b"}), loads=1)


WELL = Life(healthy_since=0)
REFILLING = Life(healthy_since=0, refill=A)


@pytest.mark.parametrize(
    ("life", "was_ready", "unsettled", "on_disk", "now", "ready"),
    [
        pytest.param(Life(), False, (), (), 1, False, id="engine not up yet"),
        pytest.param(Life(), False, (), (), 10_000, False, id="however long"),
        pytest.param(WELL, False, (), (), 1, True, id="engine up, nothing to hold"),
        pytest.param(WELL, False, A, (), 1, False, id="first: waits for its entries"),
        pytest.param(WELL, False, A, A, 119, False, id="first: until the bound"),
        pytest.param(WELL, False, A, A, 120, True, id="first: not longer"),
        pytest.param(WELL, True, A, (), 1, True, id="then: an entry that is new changes nothing"),
        pytest.param(REFILLING, True, A, A, 1, False, id="refill from disk: out"),
        pytest.param(REFILLING, True, A, A, 120, True, id="refill: not longer than the bound"),
        pytest.param(REFILLING, True, A, (), 1, True, id="refill from the Hub: stays in"),
        pytest.param(REFILLING, True, (), A, 1, True, id="refilled, or failed"),
        pytest.param(Life(refill=A), True, A, A, 1, False, id="engine down, to be refilled: out"),
        pytest.param(Life(), True, A, A, 1, True, id="engine down, nothing was there: stays"),
    ],
)
def test_readiness(
    life: Life, was_ready: bool, unsettled: frozenset[str], on_disk: frozenset[str], now: float, ready: bool
) -> None:
    told = is_ready(life, was_ready=was_ready, unsettled=set(unsettled), on_disk=set(on_disk), now=now, bound=120)
    assert told is ready
