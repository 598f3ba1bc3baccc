"""The status write that ends a pass: none without news, counts later, an Event for each turn of Ready."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from lora_operator.api.lora_adapter import AdapterStatus, Replicas
from lora_operator.conditions import Fact, false, fold, true
from lora_operator.labels import key_of
from lora_operator.reporting import PATIENCE, Reporter, severity
from support.objects import make_adapter

Object = dict[str, Any]
START = datetime(2026, 11, 22, 12, tzinfo=UTC)


@dataclass
class World:
    """What a reporter writes to, and its clock."""

    now: datetime = START
    written: list[Object] = field(default_factory=list)
    said: list[tuple[str, str, str]] = field(default_factory=list)

    async def apply(self, obj: Object, *, subresource: str | None = None) -> Object:
        assert subresource == "status"
        self.written.append(obj)
        return obj

    async def say(self, obj: Object, kind: str, reason: str, note: str) -> None:  # noqa: ARG002 - the Recorder's shape
        self.said.append((kind, reason, note))

    def reporter(self) -> Reporter:
        return Reporter(self, self, now=lambda: self.now)  # type: ignore[arg-type]


def status(*facts: Fact, loaded: int = 1) -> AdapterStatus:
    conditions = fold((), facts, generation=1, now=START)
    return AdapterStatus(observed_generation=1, conditions=conditions, replicas=Replicas(desired=2, loaded=loaded))


def stored(given: AdapterStatus | None) -> Object:
    """Return the object as the apiserver has it after this status was written."""
    obj = make_adapter()
    return obj | ({"status": given.model_dump(mode="json", by_alias=True, exclude_none=True)} if given else {})


READY = true("Ready", "Loaded", "2 of 2")


async def test_the_first_status_is_written_and_told() -> None:
    world = World()

    assert await world.reporter().report(stored(None), status(READY)) is None

    [patch] = world.written
    assert set(patch) == {"apiVersion", "kind", "metadata", "status"}
    assert patch["metadata"]["uid"] == "uid-support"
    assert world.said == [("Normal", "Loaded", "2 of 2")]


async def test_a_status_that_stands_is_not_written_again() -> None:
    world = World()

    assert await world.reporter().report(stored(status(READY)), status(READY)) is None
    assert (world.written, world.said) == ([], [])


async def test_an_empty_list_is_no_news_for_one_that_an_apply_emptied_is_gone_from_the_object() -> None:
    world = World()
    before = stored(status(READY))
    del before["status"]["pods"]

    assert await world.reporter().report(before, status(READY)) is None
    assert world.written == []


async def test_counts_alone_are_written_once_they_have_differed_for_a_while() -> None:
    world = World()
    reporter = world.reporter()
    before, after = stored(status(READY)), status(READY, loaded=2)

    wait = await reporter.report(before, after)
    assert wait is not None
    assert PATIENCE <= wait <= PATIENCE * 1.3
    assert world.written == []
    world.now += timedelta(seconds=wait)
    assert await reporter.report(before, after) is None
    assert len(world.written) == 1
    assert world.said == []


async def test_counts_that_come_back_in_time_are_not_written_at_all() -> None:
    world = World()
    reporter = world.reporter()
    before = stored(status(READY))
    await reporter.report(before, status(READY, loaded=2))

    assert await reporter.report(before, status(READY)) is None
    world.now += timedelta(seconds=PATIENCE * 2)
    assert await reporter.report(before, status(READY, loaded=2)) is not None
    assert world.written == []


async def test_patience_may_grow_and_shrink_while_counts_differ() -> None:
    world = World()
    reporter = world.reporter()
    before, after = stored(status(READY)), status(READY, loaded=2)
    await reporter.report(before, after)
    world.now += timedelta(seconds=PATIENCE * 2)

    assert await reporter.report(before, after, patience=PATIENCE * 10) is not None
    assert world.written == []
    assert await reporter.report(before, after) is None
    assert len(world.written) == 1


async def test_a_gap_under_a_ready_that_stands_waits_like_a_count() -> None:
    world = World()
    gap = status(READY, true("Reconciling", "PartlyLoaded", "1 of 2"))

    assert await world.reporter().report(stored(status(READY)), gap) is not None
    assert world.written == []


async def test_a_turn_of_ready_is_written_and_told_at_once() -> None:
    world = World()
    stalled = status(false("Ready", "RankTooHigh", "rank 64"), true("Stalled", "RankTooHigh"))

    assert await world.reporter().report(stored(status(READY)), stalled) is None

    assert len(world.written) == 1
    assert world.said == [("Warning", "RankTooHigh", "rank 64")]


async def test_a_turn_of_another_condition_is_written_at_once_and_is_no_event() -> None:
    world = World()
    before, after = status(READY, true("Compatible", "A")), status(READY, false("Compatible", "B"))

    assert await world.reporter().report(stored(before), after) is None
    assert len(world.written) == 1
    assert world.said == []


async def test_an_object_that_is_gone_leaves_nothing_behind() -> None:
    world = World()
    reporter = world.reporter()
    obj = stored(status(READY))
    await reporter.report(obj, status(READY, loaded=2))
    world.now += timedelta(seconds=PATIENCE * 2)
    reporter.forget(key_of(obj))

    assert await reporter.report(obj, status(READY, loaded=2)) is not None


def test_an_event_is_a_warning_where_nothing_is_ready_on_its_way_or_paused() -> None:
    def loudness(*facts: Fact) -> str:
        return severity(stored(status(*facts))["status"])

    assert loudness(READY) == "Normal"
    assert loudness(false("Ready", "Loading"), true("Reconciling", "Loading")) == "Normal"
    assert loudness(false("Ready", "NoPods")) == "Warning"
    assert loudness(false("Ready", "X"), true("Stalled", "X")) == "Warning"
