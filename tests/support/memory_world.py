"""A world in memory for a pass: an apiserver that keeps what is applied, and a Hub that answers.

It counts writes, and can die before or after any of them, as the operator may.
"""

from __future__ import annotations

import copy
import itertools
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, cast

from kubernetes.aio.client.exceptions import ApiException

from lora_operator.clients.hub import Hub, Place, Snapshot
from lora_operator.clients.kube import Kube, Resource
from lora_operator.errors import PassError
from lora_operator.events import Recorder
from lora_operator.labels import Key, key_of
from lora_operator.reporting import Reporter
from lora_operator.settings import Settings
from lora_operator.store import Store
from lora_operator.world import World

Object = dict[str, Any]
NOW = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)


class KilledError(Exception):
    """The operator ended here."""


@dataclass
class MemoryKube:
    """Keeps objects by key. `kill_at` counts writes: even numbers die before one, odd numbers after it."""

    store: Store
    objects: dict[Key, Object] = field(default_factory=dict)
    writes: list[str] = field(default_factory=list)
    kill_at: int | None = None
    refuse: dict[str, ApiException] = field(default_factory=dict)
    _versions: Iterator[int] = field(default_factory=lambda: itertools.count(1))

    def put(self, obj: Object) -> Object:
        """Keep an object and show it to the operator, as a watch does."""
        key = key_of(obj)
        known = self.objects.get(key)
        obj = copy.deepcopy(obj)
        obj["metadata"].setdefault("uid", known["metadata"]["uid"] if known else f"uid-{key.kind}-{key.name}")
        obj["metadata"]["resourceVersion"] = str(next(self._versions))
        obj["metadata"].setdefault("creationTimestamp", "2026-11-22T11:00:00Z")
        self.objects[key] = obj
        self.store.saw(copy.deepcopy(obj))
        return obj

    def drop(self, key: Key) -> None:
        """Delete an object."""
        self.store.gone(self.objects.pop(key))

    async def get(self, resource: Resource, namespace: str, name: str) -> Object | None:
        """Read an object."""
        return copy.deepcopy(self.objects.get(Key(resource.kind, namespace, name)))

    async def apply(self, obj: Object, *, subresource: str | None = None, **_: object) -> Object:
        """Merge what is applied into what is there."""
        key = key_of(obj)
        with _Killing(self, f"apply {obj['kind']}{'/status' if subresource else ''}"):
            if refusal := self.refuse.get(obj["kind"]):
                raise refusal
            before = self.objects.get(key, {})
            if subresource == "status":
                return self.put(before | {"status": obj["status"]})
            return self.put(before | obj | {"metadata": before.get("metadata", {}) | obj["metadata"]})
        raise AssertionError("unreachable")

    async def create(self, obj: Object) -> Object:
        """Make an object; Events and reviews are only noted."""
        key = key_of(obj)
        with _Killing(self, f"create {obj['kind']}"):
            if key in self.objects:
                raise ApiException(status=409, reason="AlreadyExists")
            return self.put(obj)
        raise AssertionError("unreachable")

    async def delete(self, obj: Object) -> None:
        """Delete an object."""
        with _Killing(self, f"delete {obj['kind']}"):
            self.drop(key_of(obj))


class _Killing:
    def __init__(self, kube: MemoryKube, write: str) -> None:
        self._kube, self._write = kube, write

    def __enter__(self) -> None:
        self._at = 2 * len(self._kube.writes)
        if self._kube.kill_at == self._at:
            raise KilledError(f"before {self._write}")
        self._kube.writes.append(self._write)

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is None and self._kube.kill_at == self._at + 1:
            raise KilledError(f"after {self._write}")


@dataclass
class AnsweringHub:
    """A Hub that knows commits by repository, and answers with a refusal where it is told to."""

    refusals: dict[str, PassError] = field(default_factory=dict)
    commits: dict[str, str] = field(default_factory=dict)
    """By line of a commit's message: the commit."""
    result: bytes = b""
    asked: list[str] = field(default_factory=list)

    async def resolve(self, place: Place, **_: object) -> Snapshot:
        """Resolve a revision to a commit that tells what it was made from."""
        self._ask(place.repo)
        return Snapshot(place.repo, f"{place.repo_type}-commit-of-{place.revision}", ())

    async def check_read(self, place: Place, **_: object) -> None:
        """Allow it."""
        self._ask(place.repo)

    async def check_write(self, place: Place, **_: object) -> None:
        """Allow it."""
        self._ask(place.repo)

    async def find_commit(self, place: Place, line: str, **_: object) -> str | None:
        """Find a commit by a line of its message."""
        self._ask(place.repo)
        return self.commits.get(line)

    async def read(self, *_: object, **__: object) -> bytes:
        """Return the result."""
        return self.result

    def _ask(self, repo: str) -> None:
        self.asked.append(repo)
        if refusal := self.refusals.get(repo):
            raise refusal


@dataclass
class Clock:
    """A clock that a test sets."""

    now: datetime = NOW

    def __call__(self) -> datetime:
        """Return the time."""
        return self.now

    def pass_by(self, seconds: float) -> None:
        """Let time pass."""
        self.now += timedelta(seconds=seconds)


@dataclass
class TrainingWorld:
    """The parts, and the world that a pass is handed."""

    kube: MemoryKube
    hub: AnsweringHub
    clock: Clock
    world: World
    woken: list[Key]

    def restarted(self) -> TrainingWorld:
        """Return the world as another start of the operator sees it: what was seen is listed anew."""
        again = make_world(self.world.settings, hub=self.hub, clock=self.clock)
        for obj in self.kube.objects.values():
            again.kube.objects[key_of(obj)] = obj
            again.store.saw(copy.deepcopy(obj))
        again.kube._versions = self.kube._versions
        return again

    @property
    def store(self) -> Store:
        """Return what was seen."""
        return self.world.store


def make_world(
    settings: Settings | None = None, *, hub: AnsweringHub | None = None, clock: Clock | None = None
) -> TrainingWorld:
    """Return a world with nothing in it."""
    store, clock, hub = Store(), clock or Clock(), hub or AnsweringHub()
    kube, woken = MemoryKube(store), list[Key]()
    real = cast("Kube", kube)
    recorder = Recorder(real, now=clock)
    world = World(
        settings=settings or Settings(),
        store=store,
        kube=real,
        hub=cast("Hub", hub),
        doors=cast("Any", None),
        recorder=recorder,
        reporter=Reporter(real, recorder, now=clock),
        wake=woken.append,
        now=clock,
    )
    return TrainingWorld(kube=kube, hub=hub, clock=clock, world=world, woken=woken)


def refused(status: int, message: str) -> ApiException:
    """Return the apiserver's refusal."""
    error = ApiException(status=status, reason="Refused")
    error.body = json.dumps({"message": message})
    return error
