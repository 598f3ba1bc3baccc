"""The newest version of every object that the operator watches, with the few ways in which passes look things up.

Fed by watch events, by the periodic LIST, and by our own writes' responses, whichever is newest: so a pass that follows
a write reads that write (resourceVersions of one resource compare as integers, KEP-5504).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable
from typing import Any, Final

from lora_operator import labels
from lora_operator.labels import Key, key_of

Object = dict[str, Any]
Index = Callable[[Object], Iterable[Key]]

REMEMBERED_DELETIONS: Final = 10_000


def engine_of_adapter(adapter: Object) -> list[Key]:
    """Return the LoRAEngine that a LoRAAdapter names."""
    return _engine_ref(adapter)


def engine_of_job(job: Object) -> list[Key]:
    """Return the LoRAEngine that a LoRATrainingJob names."""
    return _engine_ref(job)


def engine_of_labelled(obj: Object) -> list[Key]:
    """Return the LoRAEngine that a labelled pod or shard of the manifest belongs to."""
    name = (obj["metadata"].get("labels") or {}).get(labels.ENGINE)
    return [Key("LoRAEngine", obj["metadata"]["namespace"], name)] if name else []


def job_of_labelled(obj: Object) -> list[Key]:
    """Return the LoRATrainingJob that a labelled Job or pod belongs to."""
    name = (obj["metadata"].get("labels") or {}).get(labels.TRAINING_JOB)
    return [Key("LoRATrainingJob", obj["metadata"]["namespace"], name)] if name else []


def source_job_of_adapter(adapter: Object) -> list[Key]:
    """Return the LoRATrainingJob that a LoRAAdapter takes its source from."""
    ref = adapter["spec"]["source"].get("trainingJobRef")
    return [Key("LoRATrainingJob", adapter["metadata"]["namespace"], ref["name"])] if ref else []


INDEXES: Final[dict[tuple[str, str], Index]] = {
    ("LoRAAdapter", "engine"): engine_of_adapter,
    ("LoRAAdapter", "source"): source_job_of_adapter,
    ("LoRATrainingJob", "engine"): engine_of_job,
    ("Pod", "engine"): engine_of_labelled,
    ("Pod", "job"): job_of_labelled,
    ("ConfigMap", "engine"): engine_of_labelled,
    ("Job", "job"): job_of_labelled,
}


class Store:
    """Objects by key, and by what they refer to. Holds nothing that a restart would lose."""

    def __init__(self) -> None:
        self._objects: dict[Key, Object] = {}
        self._by_kind: dict[str, set[Key]] = {}
        self._index: dict[tuple[str, str, Key], set[Key]] = {}
        self._deleted: OrderedDict[str, int] = OrderedDict()

    def get(self, key: Key) -> Object | None:
        """Return the newest version that was seen."""
        return self._objects.get(key)

    def kind(self, kind: str) -> list[Key]:
        """Return the keys of a kind, sorted."""
        return sorted(self._by_kind.get(kind, ()))

    def referring(self, kind: str, index: str, to: Key) -> list[Object]:
        """Return the objects of a kind whose index names `to`, sorted by key."""
        return [self._objects[key] for key in sorted(self._index.get((kind, index, to), ()))]

    def saw(self, obj: Object) -> bool:
        """Take in an object; False where something as new, or its deletion, was seen before."""
        key = key_of(obj)
        known = self._objects.get(key)
        if _version(obj) <= self._deleted.get(obj["metadata"]["uid"], -1) or not _newer(obj, known):
            return False
        obj["metadata"].pop("managedFields", None)
        self._forget(key)
        self._objects[key] = obj
        self._by_kind.setdefault(key.kind, set()).add(key)
        for index, to in _entries(obj):
            self._index.setdefault((key.kind, index, to), set()).add(key)
        return True

    def gone(self, obj: Object) -> bool:
        """Take in that an object was deleted, or no longer matches our watch; False where a namesake took its place."""
        key, uid = key_of(obj), obj["metadata"]["uid"]
        self._deleted[uid] = _version(obj)
        if len(self._deleted) > REMEMBERED_DELETIONS:
            self._deleted.popitem(last=False)
        known = self._objects.get(key)
        if known is None or known["metadata"]["uid"] != uid:
            return False
        return self._forget(key)

    def replace(self, kind: str, objects: list[Object], *, version: int) -> list[Key]:
        """Take in a whole LIST, as of `version`; return the keys that changed or vanished without our being told."""
        listed = {key_of(obj) for obj in objects}
        vanished = [key for key in self.kind(kind) if key not in listed and _version(self._objects[key]) <= version]
        for key in vanished:
            self.gone(self._objects[key])
        return vanished + [key_of(obj) for obj in objects if self.saw(obj)]

    def _forget(self, key: Key) -> bool:
        obj = self._objects.pop(key, None)
        if obj is None:
            return False
        self._by_kind[key.kind].discard(key)
        for index, to in _entries(obj):
            self._index[key.kind, index, to].discard(key)
        return True


def _entries(obj: Object) -> Iterable[tuple[str, Key]]:
    for (kind, index), refer in INDEXES.items():
        if kind == obj["kind"]:
            for to in refer(obj):
                yield index, to


def _version(obj: Object) -> int:
    return int(obj["metadata"]["resourceVersion"])


def _newer(obj: Object, known: Object | None) -> bool:
    if known is None or obj["metadata"]["uid"] != known["metadata"]["uid"]:
        return True
    return _version(obj) > _version(known)


def _engine_ref(obj: Object) -> list[Key]:
    ref = obj["spec"].get("engineRef")
    return [Key("LoRAEngine", ref.get("namespace") or obj["metadata"]["namespace"], ref["name"])] if ref else []
