"""What 200 adapters on two pods cost the apiserver, by its audit log. Prints what `tests/cluster` holds in small."""

from __future__ import annotations

import datetime as dt
from collections import Counter
from collections.abc import Iterator

import pytest

import hubserver
from support.crowd import Crowd, count_from_apply_to_ready, replace_a_pod, tally

COUNT = 200
IDLE_SECONDS = 300


@pytest.fixture(scope="module")
def crowd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Crowd]:
    """Return 200 Ready adapters."""
    folder = tmp_path_factory.mktemp("crowd")
    with hubserver.running() as hub, Crowd.running(COUNT, hub=hub, folder=folder) as running:
        yield running


def test_writes_of_one_adapter(crowd: Crowd) -> None:
    written = count_from_apply_to_ready(crowd, "counted")

    print(f"\nwrites from apply to Ready, beside {COUNT} others: {written.total()}: {dict(written)}")
    assert written.total() <= 6


def test_writes_when_a_pod_is_replaced(crowd: Crowd) -> None:
    written = replace_a_pod(crowd, quiet_seconds=40)

    of_each = Counter(write.name for write in written if write.resource == "loraadapters")
    print(f"\nwrites to {crowd.ready()} adapters when one of two pods is replaced: {of_each.total()}")
    print(f"and everything that was written: {dict(tally(written))}")
    assert max(of_each.values(), default=0) <= 1


def test_writes_in_five_idle_minutes(crowd: Crowd) -> None:
    crowd.quiet(40, since=dt.datetime.now(dt.UTC))
    since = dt.datetime.now(dt.UTC)
    crowd.quiet(IDLE_SECONDS, since=since)

    print(f"\nwrites in {IDLE_SECONDS} idle seconds: {len(crowd.writes(since))}, resyncs: {crowd.resyncs(since)}")
    assert crowd.writes(since) == []
