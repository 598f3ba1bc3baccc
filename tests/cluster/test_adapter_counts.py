"""What 200 adapters on two pods cost the apiserver, counted by its audit log; and that a restart costs nothing."""

from __future__ import annotations

import datetime as dt
import itertools
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from hubserver import Hub
from localcluster import audit
from localcluster import control_plane as running_control_plane
from support.adapters import make_adapter
from support.apiserver import ApiServer
from support.operating import Operator, eventually, running_operator
from support.serving import SERVE, ServingSite, adapter
from support.site import passes

ROOT = Path(__file__).parents[2]
COUNT = 200
RESYNC_SECONDS = 10
LONGEST_PATIENCE_SECONDS = 40
"""After so long without a write, nothing is left that waits to be written."""


@dataclass(frozen=True)
class Crowd:
    """A site full of adapters, and the operator that looks after them."""

    site: ServingSite
    operator: Operator
    folder: Path

    def writes(self, since: dt.datetime) -> list[audit.Request]:
        """Return what the operator wrote."""
        return audit.writes(self.site.plane.audit_log, user=self.operator.user, since=since)

    def quiet(self, seconds: float, *, since: dt.datetime) -> None:
        """Wait until the operator has written nothing for so long."""
        due = since

        def look() -> bool:
            nonlocal due
            if dt.datetime.now(dt.UTC) < due:
                return False
            last = max((write.at for write in self.writes(since)), default=since)
            due = last + dt.timedelta(seconds=seconds)
            return dt.datetime.now(dt.UTC) >= due

        eventually(look, f"{seconds} s without a write")

    def held(self) -> set[str]:
        """Return the engine names that every pod has."""
        return set.intersection(*(set(pod.engine.adapters) for pod in self.site.pods.pods))


@pytest.fixture(scope="module")
def crowd(hub: Hub, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Crowd]:
    """Return a control plane of its own, with an engine of two pods and 200 adapters that are Ready."""
    folder = tmp_path_factory.mktemp("crowd")
    with running_control_plane(folder / "plane") as plane:
        plane.run_kubectl("apply", "--server-side", "-f", str(ROOT / "crds"))
        plane.run_kubectl("wait", "--for=condition=Established", "--timeout=120s", "-f", str(ROOT / "crds"))
        with (
            running_operator(plane, folder, resync_seconds=str(RESYNC_SECONDS), **hub_settings(hub)) as operator,
            ServingSite.running(
                plane, "crowd", hub=hub, root=folder / "pods", replicas=2, command=(*SERVE, "--max-cpu-loras=1000")
            ) as site,
        ):
            for index in range(COUNT):
                apply(site, f"bot-{index}")
            made = Crowd(site, operator, folder)
            eventually(lambda: len(made.held()) == COUNT, f"{COUNT} adapters on each pod")
            eventually(lambda: ready(site) == COUNT, f"{COUNT} Ready adapters")
            yield made


def hub_settings(hub: Hub) -> dict[str, str]:
    return {"HF_ENDPOINT": hub.url, "HF_HUB_DISABLE_XET": "1"}


_seeds = itertools.count(1000)


def publish(site: ServingSite, name: str) -> None:
    """Publish a small adapter of a content of its own."""
    site.publish(f"crowd/{name}", make_adapter(rank=1, targets=("q_proj",), seed=next(_seeds)))


def apply(site: ServingSite, name: str) -> None:
    publish(site, name)
    obj = adapter(name, repo=f"crowd/{name}")
    ApiServer(site.plane).create(obj | {"metadata": obj["metadata"] | {"namespace": site.namespace}})


def ready(site: ServingSite) -> int:
    """Return how many adapters are Ready."""
    conditions = [((item.get("status") or {}).get("conditions") or [{}])[0] for item in site.items("loraadapters")]
    return sum((found.get("type"), found.get("status")) == ("Ready", "True") for found in conditions)


def tally(writes: list[audit.Request]) -> Counter[str]:
    """Count writes by what was written."""
    return Counter(f"{write.verb} {write.resource}{write.subresource and '/'}{write.subresource}" for write in writes)


def test_an_adapter_costs_a_handful_of_writes_from_apply_to_ready(crowd: Crowd) -> None:
    crowd.quiet(5, since=dt.datetime.now(dt.UTC))
    since = dt.datetime.now(dt.UTC)
    apply(crowd.site, "counted")
    crowd.site.ready("counted")
    crowd.site.told("counted", "Loaded")

    # Its own writes: what is still told of the crowd's counts, up to 40 s late, may fall into the same seconds.
    own = [
        write for write in crowd.writes(since) if write.name == "counted" or write.resource in {"configmaps", "events"}
    ]
    written = tally(own)
    print(f"\nwrites from apply to Ready: {sum(written.values())}: {dict(written)}")
    assert written["patch loraadapters"] == 1, "the finaliser"
    assert written["patch configmaps"] == 1, "the shard"
    assert written["patch loraadapters/status"] <= 2, "under way, and there"
    assert sum(written.values()) <= 6


def test_after_convergence_nothing_is_written_though_everything_is_looked_at_again(crowd: Crowd) -> None:
    since = dt.datetime.now(dt.UTC)
    crowd.quiet(60, since=since)

    settled = max((write.at for write in crowd.writes(since)), default=since)
    looked = audit.requests(crowd.site.plane.audit_log, user=crowd.operator.user, since=settled)
    resyncs = [found for found in looked if (found.verb, found.resource) == ("list", "loraadapters")]
    print(f"\nwrites in 60 idle seconds: 0, with {len(resyncs)} resyncs")
    assert len(resyncs) >= 60 / RESYNC_SECONDS / 2


def test_a_pod_that_is_replaced_costs_no_adapter_more_than_one_write(crowd: Crowd) -> None:
    before, since = crowd.site.pods.wait_ready(2), dt.datetime.now(dt.UTC)
    wanted = crowd.held()

    crowd.site.pods.delete(before[0])
    eventually(lambda: before[0] not in crowd.site.pods.pods, "the pod to be gone")
    crowd.site.pods.wait_ready(2)
    eventually(lambda: crowd.held() >= wanted, "the new pod to hold everything")
    crowd.quiet(15, since=since)

    written = crowd.writes(since)
    mine = Counter(write.name for write in written if write.resource == "loraadapters")
    print(f"\nwrites to {len(wanted)} adapters when one of two pods is replaced: {mine.total()} of {tally(written)}")
    assert max(mine.values(), default=0) <= 1
    assert tally(written)["create events"] == 0, "nobody's Ready turned"
    assert ready(crowd.site) == len(wanted)


def test_an_operator_that_restarts_writes_nothing_reloads_nothing_and_moves_no_pin(crowd: Crowd, hub: Hub) -> None:
    pods, names = crowd.site.pods.wait_ready(2), crowd.held()
    loads = crowd.site.loads()
    crowd.operator.kill()
    publish(crowd.site, "bot-0")
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
    assert (crowd.site.pods.pods, ready(crowd.site)) == (pods, len(names))
