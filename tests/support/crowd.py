"""A site full of adapters, and what its operator writes, by the apiserver's audit log."""

from __future__ import annotations

import datetime as dt
import itertools
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from hubserver import Hub
from localcluster import audit
from localcluster import control_plane as running_control_plane
from support.adapters import make_adapter
from support.apiserver import ApiServer
from support.operating import Operator, eventually, running_operator
from support.serving import SERVE, ServingSite, adapter

ROOT = Path(__file__).parents[2]
RESYNC_SECONDS = 10

_seeds = itertools.count(1000)


@dataclass(frozen=True)
class Crowd:
    """An engine of two pods with many adapters, and the operator that looks after them."""

    site: ServingSite
    operator: Operator
    folder: Path

    @classmethod
    @contextmanager
    def running(cls, count: int, *, hub: Hub, folder: Path) -> Iterator[Crowd]:
        """Run `count` adapters that are Ready on a control plane of their own."""
        with running_control_plane(folder / "plane") as plane:
            plane.run_kubectl("apply", "--server-side", "-f", str(ROOT / "crds"))
            plane.run_kubectl("wait", "--for=condition=Established", "--timeout=120s", "-f", str(ROOT / "crds"))
            command = (*SERVE, "--max-cpu-loras=1000")
            with (
                running_operator(plane, folder, resync_seconds=str(RESYNC_SECONDS), **hub_settings(hub)) as operator,
                ServingSite.running(plane, "crowd", hub=hub, root=folder / "pods", replicas=2, command=command) as site,
            ):
                crowd = cls(site, operator, folder)
                for index in range(count):
                    crowd.apply(f"bot-{index}")
                eventually(lambda: len(crowd.held()) == count, f"{count} adapters on each pod")
                eventually(lambda: crowd.ready() == count, f"{count} Ready adapters")
                yield crowd

    def publish(self, name: str) -> None:
        """Publish a small adapter of a content of its own."""
        self.site.publish(f"crowd/{name}", make_adapter(rank=1, targets=("q_proj",), seed=next(_seeds)))

    def apply(self, name: str) -> None:
        """Publish an adapter and apply the LoRAAdapter that serves it."""
        self.publish(name)
        obj = adapter(name, repo=f"crowd/{name}")
        ApiServer(self.site.plane).create(obj | {"metadata": obj["metadata"] | {"namespace": self.site.namespace}})

    def ready(self) -> int:
        """Return how many adapters are Ready."""
        conditions = [
            ((item.get("status") or {}).get("conditions") or [{}])[0] for item in self.site.items("loraadapters")
        ]
        return sum((found.get("type"), found.get("status")) == ("Ready", "True") for found in conditions)

    def held(self) -> set[str]:
        """Return the engine names that every pod has."""
        return set.intersection(*(set(pod.engine.adapters) for pod in self.site.pods.pods))

    def writes(self, since: dt.datetime) -> list[audit.Request]:
        """Return what the operator wrote."""
        return audit.writes(self.site.plane.audit_log, user=self.operator.user, since=since)

    def resyncs(self, since: dt.datetime) -> int:
        """Return how often the operator listed all adapters."""
        looked = audit.requests(self.site.plane.audit_log, user=self.operator.user, since=since)
        return sum((found.verb, found.resource) == ("list", "loraadapters") for found in looked)

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

        eventually(look, f"{seconds} s without a write", deadline=seconds + 240)


def hub_settings(hub: Hub) -> dict[str, str]:
    """Return what points an operator at the Hub."""
    return {"HF_ENDPOINT": hub.url, "HF_HUB_DISABLE_XET": "1"}


def tally(writes: list[audit.Request]) -> Counter[str]:
    """Count writes by what was written."""
    return Counter(f"{write.verb} {write.resource}{write.subresource and '/'}{write.subresource}" for write in writes)


def count_from_apply_to_ready(crowd: Crowd, name: str) -> Counter[str]:
    """Apply one adapter more, wait until it is Ready, and count the writes that it cost."""
    crowd.quiet(5, since=dt.datetime.now(dt.UTC))
    since = dt.datetime.now(dt.UTC)
    crowd.apply(name)
    crowd.site.ready(name)
    crowd.site.told(name, "Loaded")
    # Its own writes: what is still told of the crowd's counts, up to 40 s late, may fall into the same seconds.
    return tally(
        [write for write in crowd.writes(since) if write.name == name or write.resource in {"configmaps", "events"}]
    )


def replace_a_pod(crowd: Crowd, *, quiet_seconds: float) -> list[audit.Request]:
    """Delete one of the two pods; return what was written until its successor holds everything and it is quiet."""
    before, since = crowd.site.pods.wait_ready(2), dt.datetime.now(dt.UTC)
    wanted = crowd.held()
    crowd.site.pods.delete(before[0])
    eventually(lambda: before[0] not in crowd.site.pods.pods, "the pod to be gone")
    crowd.site.pods.wait_ready(2)
    eventually(lambda: crowd.held() >= wanted, "the new pod to hold everything")
    crowd.quiet(quiet_seconds, since=since)
    return crowd.writes(since)
