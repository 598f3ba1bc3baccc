"""What a training is refused for, and how it fails: each ends in a condition and an Event that say what to change."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest

from hubserver import Hub, RepoKey
from localcluster import ControlPlane
from lora_operator.protocol.training import Reason, Result
from support.job_actor import OUT_OF_MEMORY, Ending
from support.operating import Operator, eventually
from support.trainer_results import DATASET_FAULTS
from support.training_namespace import MAX_LORA_RANK, Trainings, conditions

Object = dict[str, Any]
READ_ONLY = {"name": "hf", "key": "read-only"}


@pytest.fixture(scope="module")
def trainings(kinds: ControlPlane, hub: Hub, operator: Operator) -> Trainings:
    """Return a namespace for the trainings of this module."""
    ground = Trainings(kinds, hub, "training-refusals")
    ground.prepare()
    keys = {"token": "hf_write", "wrong": "hf_nobody", "read-only": "hf_read", "stranger": "hf_other"}
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "hf", "namespace": ground.namespace}}
    ground.apply(secret | {"stringData": keys})
    hub.add_model("secretive/base", {"config.json": b"{}"}, private=True)
    hub.add_model("gated/base", {"config.json": b"{}"})
    hub.store.configure(RepoKey(type="model", namespace="gated", name="base"), gated="manual")
    return ground


@dataclass(frozen=True)
class Refusal:
    """What is wrong with a spec, and what is said of it."""

    spec: Object = field(default_factory=dict)
    reason: str = ""
    says: tuple[str, ...] = ()


def _token(key: str, name: str = "hf") -> Object:
    return {"name": name, "key": key}


def _output(key: str, *, repo: str = "acme/refused", name: str = "hf") -> Object:
    return {"repo": repo, "tokenSecretRef": _token(key, name)}


def _hub_dataset(**fields: Any) -> Object:
    return {"hub": {"repo": "acme/rows"} | fields}


REFUSALS = {
    "unknown-base-model": Refusal(
        {"engineRef": None, "baseModel": {"name": "acme/no-such", "tokenSecretRef": _token("token")}},
        "RepositoryNotFound",
        ("acme/no-such", "spec.baseModel.name"),
    ),
    "unknown-base-revision": Refusal(
        {"baseModel__revision": "v99"}, "RevisionNotFound", ("v99", "spec.baseModel.revision")
    ),
    "private-base-without-token": Refusal(
        {"engineRef": None, "baseModel": {"name": "secretive/base"}},
        "HubUnauthorized",
        ("secretive/base", "spec.baseModel.tokenSecretRef"),
    ),
    "gated-base": Refusal(
        {"engineRef": None, "baseModel": {"name": "gated/base", "tokenSecretRef": _token("token")}},
        "HubForbidden",
        ("gated/base", "ask for access", "spec.baseModel.tokenSecretRef"),
    ),
    "wrong-base-token": Refusal(
        {"baseModel__tokenSecretRef": _token("wrong")}, "HubUnauthorized", ("spec.baseModel.tokenSecretRef",)
    ),
    "no-token-secret": Refusal(
        {"output__hub": _output("token", name="absent")},
        "TokenSecretNotFound",
        ("absent", "spec.output.hub.tokenSecretRef"),
    ),
    "no-token-key": Refusal(
        {"output__hub": _output("nothing")}, "TokenSecretNotFound", ("nothing", "spec.output.hub.tokenSecretRef")
    ),
    "no-output-token": Refusal(
        {"output__hub": {"repo": "acme/refused"}}, "HubUnauthorized", ("spec.output.hub.tokenSecretRef",)
    ),
    "wrong-output-token": Refusal(
        {"output__hub": _output("wrong")}, "HubUnauthorized", ("spec.output.hub.tokenSecretRef",)
    ),
    "read-only-output-token": Refusal(
        {"output__hub": _output("read-only")}, "HubForbidden", ("only read", "spec.output.hub.tokenSecretRef")
    ),
    "output-of-another-organisation": Refusal(
        {"output__hub": _output("stranger")}, "HubForbidden", ("acme", "spec.output.hub.repo")
    ),
    "rank-too-high": Refusal({"lora": {"r": 64}}, "RankTooHigh", ("64", str(MAX_LORA_RANK), "spec.lora")),
    "another-base-than-the-engine": Refusal(
        {"baseModel": {"name": "acme/other"}}, "BaseModelMismatch", ("acme/other", "spec.baseModel.name")
    ),
    "no-engine": Refusal({"engineRef": {"name": "nowhere"}}, "EngineNotFound", ("nowhere", "spec.engineRef")),
    "engine-elsewhere": Refusal(
        {"engineRef": {"name": "vllm", "namespace": "training-elsewhere"}},
        "NamespaceNotAllowed",
        ("training-refusals", "spec.allowedNamespaces"),
    ),
    "no-data-set": Refusal(
        {"dataset__source": {"configMapRef": {"name": "absent", "key": "train.jsonl"}}},
        "DatasetNotFound",
        ("absent", "spec.dataset.source.configMapRef"),
    ),
    "no-data-set-key": Refusal(
        {"dataset__source": {"configMapRef": {"name": "support", "key": "other.jsonl"}}},
        "DatasetNotFound",
        ("other.jsonl", "spec.dataset.source.configMapRef"),
    ),
    "no-data-set-repo": Refusal(
        {"dataset__source": _hub_dataset(tokenSecretRef=_token("token"))},
        "RepositoryNotFound",
        ("acme/rows", "spec.dataset.source.hub.repo"),
    ),
}


@pytest.mark.parametrize("name", REFUSALS)
def test_what_can_be_known_before_is_refused_before_a_job_is_made(trainings: Trainings, name: str) -> None:
    refusal = REFUSALS[name]
    if name == "engine-elsewhere":
        elsewhere = Trainings(trainings.plane, trainings.hub, "training-elsewhere")
        elsewhere.prepare()
    trainings.apply(trainings.job(name, **refusal.spec))

    refused = trainings.until(name, refusal.reason)

    found = conditions(refused)
    assert (found["Ready"], found["Validated"], found["Stalled"]) == ("False", "False", "True")
    message = trainings.ready(name)["message"]
    assert [part for part in refusal.says if part not in message] == []
    event = eventually(lambda: next(iter(trainings.events(name)), None), f"an Event about {name}")
    assert (event["type"], event["reason"], event["note"]) == ("Warning", refusal.reason, message)
    assert trainings.actor.pods(name) == []
    assert "jobRef" not in refused["status"]


@pytest.mark.parametrize("fault", DATASET_FAULTS)
def test_a_fault_of_the_data_set_is_told_in_the_trainers_words_and_not_tried_again(
    trainings: Trainings, fault: str
) -> None:
    given = DATASET_FAULTS[fault]
    name = f"data-{fault.replace(' ', '-')}"
    trainings.apply(trainings.job(name))
    pod = trainings.pod(name)
    trainings.actor.end(pod, Ending(int(given.exit_code), given.termination_message))

    failed = trainings.until(name, "DatasetInvalid")

    found = conditions(failed)
    assert (found["Ready"], found["Failed"], found["Stalled"], found["Complete"]) == ("False", "True", "True", "False")
    assert trainings.ready(name)["message"] in given.termination_message.replace('\\"', '"')
    assert len(trainings.actor.pods(name)) == 1
    event = eventually(
        lambda: next((one for one in trainings.events(name) if one["reason"] == "DatasetInvalid"), None), "an Event"
    )
    assert event["type"] == "Warning"


def test_a_trainer_out_of_memory_fails_naming_the_limit(trainings: Trainings) -> None:
    trainings.apply(trainings.job("out-of-memory"))
    trainings.actor.end(trainings.pod("out-of-memory"), OUT_OF_MEMORY)

    failed = trainings.until("out-of-memory", "OutOfMemory")

    assert conditions(failed)["Failed"] == "True"
    assert "spec.resources.limits.memory" in trainings.ready("out-of-memory")["message"]
    assert len(trainings.actor.pods("out-of-memory")) == 1, "another attempt would end the same way"


def test_a_trainer_that_was_killed_otherwise_is_tried_again(trainings: Trainings) -> None:
    trainings.apply(trainings.job("killed"))
    trainings.actor.end(trainings.pod("killed"), Ending(137))

    trainings.actor.run(trainings.pod("killed", attempt=2))

    trainings.until("killed", "Training")


def test_a_training_that_the_cluster_takes_back_too_often_ends(trainings: Trainings) -> None:
    trainings.apply(trainings.job("contested", maxPreemptions=0))
    pod = trainings.pod("contested")
    kept = Result(reason=Reason.PREEMPTED, message="SIGTERM at step 41", checkpoint_step=40)
    trainings.actor.end(pod, Ending(75, kept.model_dump_json(by_alias=True, exclude_none=True)))

    failed = trainings.until("contested", "PreemptedTooOften")

    status = failed["status"]
    assert (status["preemptions"], status["checkpointStep"]) == (1, 40)
    assert status["preemptedPods"] == [pod["metadata"]["name"]]


def test_an_image_that_can_not_be_pulled_is_told_while_it_lasts(trainings: Trainings) -> None:
    trainings.apply(trainings.job("no-image"))
    pod = trainings.pod("no-image")
    trainings.actor.waiting(pod, "ImagePullBackOff", "Back-off pulling image: not found")

    waiting = trainings.until("no-image", "TrainerImageUnavailable")

    assert conditions(waiting)["Reconciling"] == "True"
    assert "trainer.image" in trainings.ready("no-image")["message"]
    trainings.actor.run(pod)
    trainings.until("no-image", "Training")


def test_a_failure_that_may_pass_is_tried_again_until_the_limit(trainings: Trainings) -> None:
    trainings.apply(trainings.job("flaky", backoffLimit=1))
    trainings.actor.end(trainings.pod("flaky"), Ending(1, "not a result"))
    trainings.actor.end(trainings.pod("flaky", attempt=2), Ending(1, "not a result"))

    failed = trainings.until("flaky", "TrainingFailed")

    assert failed["status"]["attempts"] == 2
    assert "exit code 1" in trainings.ready("flaky")["message"]


def test_a_refused_training_starts_when_what_it_lacked_is_there(trainings: Trainings) -> None:
    name = "late-data-set"
    source = {"configMapRef": {"name": "late", "key": "train.jsonl"}}
    trainings.apply(trainings.job(name, dataset__source=source))
    trainings.until(name, "DatasetNotFound")
    metadata = {"name": "late", "namespace": trainings.namespace}
    trainings.apply({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": {"train.jsonl": "{}"}})
    # Nobody watches a tenant's ConfigMaps: it is looked at every minute, or when it is asked for.
    trainings.plane.run_kubectl(
        "annotate", "-n", trainings.namespace, f"loratrainingjob/{name}", "lora-operator.io/requested-at=now"
    )

    assert trainings.pod(name)["metadata"]["name"].startswith(name)


def test_a_hub_that_is_down_is_waited_for(trainings: Trainings, hub: Hub) -> None:
    hub.add_model("patient/base", {"config.json": b"{}"})
    hub.fault("GET /api/models/patient/base.*", status=503, times=-1)
    trainings.apply(trainings.job("hub-down", engineRef=None, baseModel={"name": "patient/base"}))

    waiting = trainings.until("hub-down", "HubUnavailable")

    found = conditions(waiting)
    assert (found["Validated"], found["Reconciling"]) == ("Unknown", "True")
    hub.clear_faults()
    trainings.pod("hub-down")
