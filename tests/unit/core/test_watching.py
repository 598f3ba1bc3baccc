"""Whom an object matters to: the one table by which passes are woken."""

from __future__ import annotations

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

    def by(self, obj: Object, *, deleted: bool = False) -> set[Key]:
        self.keys.clear()
        self.watching.informed(obj, deleted=deleted)
        return set(self.keys)


@pytest.fixture
def woken() -> Woken:
    found = Woken()
    for obj in (make_bot(trainingJobRef={"name": "tuned"}), make_job(), make_engine()):
        found.by(obj)
    return found


@pytest.mark.parametrize(
    ("obj", "keys"),
    [
        pytest.param(make_engine, {ENGINE, ADAPTER, JOB}, id="an engine wakes what is on it"),
        pytest.param(make_bot, {ADAPTER}, id="an adapter wakes itself"),
        pytest.param(make_job, {JOB, ADAPTER}, id="a training wakes who serves its result"),
        pytest.param(lambda: make_pod("p"), {POD, ENGINE}, id="a pod wakes its own pass and its engine's"),
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
