"""What adapters cost the apiserver, counted by its audit log; and that a restart costs nothing.

A few dozen adapters show the same counts as many: `tests/bench` has 200 of them, and waits as long as people do.
"""

from __future__ import annotations

import datetime as dt
from collections import Counter
from collections.abc import Iterator

import pytest

from hubserver import Hub
from support.crowd import RESYNC_SECONDS, Crowd, count_from_apply_to_ready, hub_settings, replace_a_pod, tally
from support.operating import eventually, running_operator
from support.site import passes

COUNT = 30
LONGEST_PATIENCE_SECONDS = 40
"""After so long without a write, nothing is left that waits to be written."""


@pytest.fixture(scope="module")
def crowd(hub: Hub, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Crowd]:
    """Return adapters that are Ready on an engine of two pods, on a control plane of their own."""
    with Crowd.running(COUNT, hub=hub, folder=tmp_path_factory.mktemp("crowd")) as running:
        yield running


def test_an_adapter_costs_a_handful_of_writes_from_apply_to_ready(crowd: Crowd) -> None:
    written = count_from_apply_to_ready(crowd, "counted")

    assert written["patch loraadapters"] == 1, "the finaliser"
    assert written["patch configmaps"] == 1, "the shard"
    assert written["patch loraadapters/status"] <= 2, "under way, and there"
    assert sum(written.values()) <= 6


def test_a_pod_that_is_replaced_costs_no_adapter_more_than_one_write(crowd: Crowd) -> None:
    count = crowd.ready()

    written = replace_a_pod(crowd, quiet_seconds=15)

    of_each = Counter(write.name for write in written if write.resource == "loraadapters")
    assert max(of_each.values(), default=0) <= 1
    assert tally(written)["create events"] == 0, "nobody's Ready turned"
    assert crowd.ready() == count


def test_after_convergence_nothing_is_written_though_everything_is_looked_at_again(crowd: Crowd) -> None:
    since = dt.datetime.now(dt.UTC)
    crowd.quiet(LONGEST_PATIENCE_SECONDS, since=since)

    settled = max((write.at for write in crowd.writes(since)), default=since)
    assert crowd.resyncs(settled) >= LONGEST_PATIENCE_SECONDS / RESYNC_SECONDS / 2


def test_an_operator_that_restarts_writes_nothing_reloads_nothing_and_moves_no_pin(crowd: Crowd, hub: Hub) -> None:
    pods, names, count = crowd.site.pods.wait_ready(2), crowd.held(), crowd.ready()
    loads = crowd.site.loads()
    crowd.operator.kill()
    crowd.publish("bot-0")
    hub.fault("", status=503, times=-1)
    since = dt.datetime.now(dt.UTC)
    try:
        with running_operator(crowd.site.plane, crowd.folder / "again", **hub_settings(hub)) as operator:
            eventually(lambda: passes(operator, "LoRAAdapter") >= 2 * len(names), "every adapter to be looked at")
            again = Crowd(crowd.site, operator, crowd.folder)
            again.quiet(LONGEST_PATIENCE_SECONDS, since=since)
            written = tally(again.writes(since))
    finally:
        hub.clear_faults()

    assert written == {}
    assert crowd.site.loads() == loads
    assert crowd.held() == names
    assert (crowd.site.pods.pods, crowd.ready()) == (pods, count)
