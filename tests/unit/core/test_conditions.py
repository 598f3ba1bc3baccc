"""Conditions: what a pass found, folded into what stood there."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from lora_operator.conditions import Fact, false, find, fold, is_true, true, unknown

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)
LATER = NOW + timedelta(minutes=5)


def test_ready_comes_first_and_every_condition_speaks_of_the_generation() -> None:
    found = fold(
        (), [true("Loaded", "Loaded"), false("Ready", "NoPods", "none"), true("Adopted", "A")], generation=3, now=NOW
    )

    assert [condition.type for condition in found] == ["Ready", "Adopted", "Loaded"]
    assert {condition.observed_generation for condition in found} == {3}
    assert {condition.last_transition_time for condition in found} == {NOW}


def test_the_time_moves_with_the_status_and_only_with_it() -> None:
    before = fold((), [false("Ready", "NoPods"), true("Loaded", "Loaded")], generation=1, now=NOW)
    after = fold(
        before, [false("Ready", "Loading", "other words"), false("Loaded", "Loading")], generation=2, now=LATER
    )

    moved = {condition.type: condition.last_transition_time for condition in after}
    assert moved == {"Ready": NOW, "Loaded": LATER}
    ready = find(after, "Ready")
    assert ready is not None
    assert (ready.reason, ready.message, ready.observed_generation) == ("Loading", "other words", 2)


def test_a_condition_that_no_fact_names_is_gone() -> None:
    before = fold((), [false("Ready", "X"), true("Stalled", "X")], generation=1, now=NOW)

    assert find(fold(before, [true("Ready", "Loaded")], generation=1, now=LATER), "Stalled") is None


def test_unknown_is_neither_true_nor_absent() -> None:
    found = fold((), [unknown("Compatible", "BaseNotReadable")], generation=1, now=NOW)

    assert find(found, "Compatible") is not None
    assert not is_true(found, "Compatible")
    assert not is_true(found, "Ready")


def test_a_message_is_cut_to_a_sane_length() -> None:
    [condition] = fold((), [Fact("Ready", false("Ready", "X").status, "X", "x" * 100_000)], generation=1, now=NOW)

    assert len(condition.message) == 2048
