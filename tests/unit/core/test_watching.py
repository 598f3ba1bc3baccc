"""Whom an object matters to: the one table by which passes are woken."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from lora_operator import labels
from lora_operator.labels import Key
from lora_operator.store import Store
from lora_operator.watching import Watching
from support.objects import make_adapter, make_engine, make_metadata, make_pod

Object = dict[str, Any]
ENGINE, ADAPTER, POD = (
    Key("LoRAEngine", "models", "llama"),
    Key("LoRAAdapter", "team-a", "bot"),
    Key("Pod", "models", "p"),
)
JOB = Key("LoRATrainingJob", "team-a", "tuned")


def make_bot(**source: Any) -> Object:
    spec: dict[str, Any] = {"engineRef": {"name": "llama", "namespace": "models"}} | (
        {"source": source} if source else {}
    )
    return make_adapter("bot", namespace="team-a", **spec)


def labelled(kind: str, version: str, namespace: str, **given: str) -> Object:
    return {"apiVersion": version, "kind": kind, "metadata": make_metadata("x", namespace=namespace, labels=given)}


def make_job() -> Object:
    obj = {
        "apiVersion": labels.API_VERSION,
        "kind": "LoRATrainingJob",
        "metadata": make_metadata("tuned", namespace="team-a"),
    }
    return obj | {"spec": {"engineRef": {"name": "llama", "namespace": "models"}}}


class Woken:
    """A watching with an adapter, its engine and its job seen before."""

    def __init__(self) -> None:
        self.keys: list[Key] = []
        self.watching = Watching(Store(), self.keys.append)
        self.engine = make_engine()

    def by(self, obj: Object, *, deleted: bool = False) -> set[Key]:
        self.keys.clear()
        self.watching.informed(obj, deleted=deleted)
        return set(self.keys)

    def by_writing(self, obj: Object, **fields: Any) -> set[Key]:
        self.keys.clear()
        written = copy.deepcopy(obj | fields)
        written["metadata"]["resourceVersion"] = str(int(obj["metadata"]["resourceVersion"]) + 1)
        self.watching.wrote(written)
        return set(self.keys)


@pytest.fixture
def woken() -> Woken:
    found = Woken()
    for obj in (make_bot(trainingJobRef={"name": "tuned"}), make_job(), found.engine):
        found.by(obj)
    return found


@pytest.mark.parametrize(
    ("obj", "keys"),
    [
        pytest.param(make_engine, {ENGINE, ADAPTER, JOB}, id="an engine wakes what is on it"),
        pytest.param(make_bot, {ADAPTER}, id="an adapter wakes itself"),
        pytest.param(make_job, {JOB, ADAPTER}, id="a training wakes who serves its result"),
        pytest.param(lambda: make_pod("p", ready=False), {POD, ENGINE}, id="a pod wakes its own pass and its engine's"),
        pytest.param(
            lambda: labelled("ConfigMap", "v1", "models", **{labels.ENGINE: "llama"}),
            {ENGINE},
            id="a shard: the engine",
        ),
        pytest.param(
            lambda: labelled("Deployment", "apps/v1", "models", **{labels.ENGINE: "llama"}), {ENGINE}, id="a Deployment"
        ),
        pytest.param(
            lambda: labelled("Job", "batch/v1", "team-a", **{labels.TRAINING_JOB: "tuned"}),
            {JOB},
            id="a Job: the training",
        ),
        pytest.param(
            lambda: labelled("Pod", "v1", "team-a", **{labels.TRAINING_JOB: "tuned"}), {JOB}, id="a trainer's pod"
        ),
        pytest.param(lambda: labelled("ConfigMap", "v1", "models"), set(), id="what is nobody's wakes nobody"),
    ],
)
def test_an_object_wakes_the_passes_that_it_matters_to(woken: Woken, obj: Any, keys: set[Key]) -> None:
    assert woken.by(obj()) == keys


def test_what_was_seen_before_wakes_nobody(woken: Woken) -> None:
    pod = make_pod("p")
    woken.by(pod)

    assert woken.by(pod) == set()


def test_an_adapter_that_is_gone_wakes_its_engine_too(woken: Woken) -> None:
    assert woken.by(make_bot(), deleted=True) == {ADAPTER, ENGINE}


def test_what_we_made_ourselves_wakes_its_pass_though_the_watch_has_no_news_then(woken: Woken) -> None:
    made = make_adapter("made-by-a-training", namespace="team-a")
    own = Key("LoRAAdapter", "team-a", "made-by-a-training")
    woken.watching.wrote(copy.deepcopy(made))

    assert own in woken.keys
    assert woken.by(made) == set()


def test_a_status_that_we_wrote_wakes_everybody_but_the_pass_that_wrote_it(woken: Woken) -> None:
    assert woken.by_writing(woken.engine, status={"conditions": []}) == {ADAPTER, JOB}


def test_what_others_changed_before_our_write_wakes_the_pass_all_the_same(woken: Woken) -> None:
    metadata = woken.engine["metadata"] | {"annotations": {labels.REQUESTED_AT: "now"}}

    assert woken.by_writing(woken.engine, status={}, metadata=metadata) == {ENGINE, ADAPTER, JOB}


def test_a_pod_that_turns_ready_or_stops_being_it_concerns_the_adapters() -> None:
    woken = Woken()
    woken.by(make_bot())
    assert ADAPTER not in woken.by(make_pod("p", ready=False))
    assert ADAPTER in woken.by(make_pod("p", ready=True))
    assert ADAPTER not in woken.by(make_pod("p", ready=True, ip="127.0.0.2"))
    assert ADAPTER in woken.by(make_pod("p", ready=False))
    assert ADAPTER not in woken.by(make_pod("p", ready=False), deleted=True)
