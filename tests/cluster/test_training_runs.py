"""A training from apply to its end: the Job, the result, the LoRAAdapter, and what is left when it goes."""

from __future__ import annotations

import json
import ssl
import urllib.error
import urllib.request
from datetime import UTC, datetime
from typing import Any

import pytest
from huggingface_hub import CommitOperationAdd, HfApi

import hubserver
from hubserver import Hub
from localcluster import ControlPlane, audit
from lora_operator.labels import FIELD_MANAGER, FINALIZER, FINALIZER_MANAGER, TRAINING_JOB
from lora_operator.protocol.training import COMMIT_TRAILER, PROGRESS_AUDIENCE, RESULT_FILE
from support.job_actor import Ending, publishing
from support.operating import Operator, eventually
from support.training_namespace import Trainings, conditions

Object = dict[str, Any]


@pytest.fixture(scope="module")
def trainings(kinds: ControlPlane, hub: Hub, operator: Operator) -> Trainings:
    """Return a namespace for the trainings of this module."""
    ground = Trainings(kinds, hub, "training-runs")
    ground.prepare()
    return ground


def test_a_training_that_publishes_is_complete_and_served(trainings: Trainings, hub: Hub) -> None:
    trainings.apply(trainings.job("served", output__adapter={"name": "bot"}))
    pod = trainings.pod("served")
    trainings.actor.run(pod)
    trainings.until("served", "Training")
    commit = hub.add_model("acme/served", {"adapter_config.json": b"{}"})
    trainings.actor.end(pod, publishing("acme/served", commit))

    done = trainings.until("served", "Published")

    assert conditions(done) == {
        "Ready": "True",
        "Validated": "True",
        "Trained": "True",
        "Published": "True",
        "Complete": "True",
        "Failed": "False",
    }
    assert done["status"]["artifact"]["commit"] == commit
    assert done["status"]["adapterRef"] == {"name": "bot"}
    adapter = trainings.get("loraadapter", "bot")
    assert adapter is not None
    assert adapter["spec"]["source"]["hub"]["revision"] == commit
    assert adapter["metadata"]["labels"][TRAINING_JOB] == "served"
    assert "ownerReferences" not in adapter["metadata"]


def test_training_anew_moves_what_is_served_and_takes_nothing_else_from_it(trainings: Trainings, hub: Hub) -> None:
    """Finaliser and spec are applied by turns: neither apply may give up what the other one holds."""
    commits = [hub.add_model("acme/anew", {"adapter_config.json": data}) for data in (b"{}", b'{"r": 1}')]
    for commit in commits:
        trainings.apply(trainings.job("anew", output__adapter={"name": "anew"}))
        pod = trainings.pod("anew")
        trainings.actor.end(pod, publishing("acme/anew", commit))
        trainings.until("anew", "Published")
        eventually(
            lambda: FINALIZER in (trainings.get("loraadapter", "anew") or {})["metadata"].get("finalizers", []),
            "the adapter's finaliser",
        )
        trainings.plane.run_kubectl("delete", "-n", trainings.namespace, "loratrainingjob/anew", "--timeout=60s")
        name = pod["metadata"]["name"]
        eventually(lambda name=name: trainings.get("pod", name) is None, "the training's pod to be gone")

    adapter = trainings.get("loraadapter", "anew") or {}
    assert adapter["metadata"]["finalizers"] == [FINALIZER]
    assert adapter["spec"]["source"]["hub"]["revision"] == commits[1]
    managers = {entry["manager"]: entry["fieldsV1"] for entry in _managed_fields(trainings, "anew")}
    assert "f:spec" in managers[FIELD_MANAGER]
    assert "f:spec" not in managers[FINALIZER_MANAGER]


def _managed_fields(trainings: Trainings, name: str) -> list[Object]:
    shown = ("get", "loraadapter", name, "-n", trainings.namespace, "-o", "json", "--show-managed-fields")
    fields: list[Object] = json.loads(trainings.plane.run_kubectl(*shown))["metadata"]["managedFields"]
    return [entry for entry in fields if entry["operation"] == "Apply" and not entry.get("subresource")]


def test_progress_that_the_trainer_posts_shows_in_the_status(trainings: Trainings) -> None:
    trainings.apply(trainings.job("reporting"))
    pod = trainings.pod("reporting")
    trainings.actor.run(pod)
    metrics = [{"name": "loss", "value": "1.25"}, {"name": "current_step", "value": "6"}]
    said = {"trainerStatus": {"progressPercentage": 10, "metrics": metrics, "lastUpdatedTime": "2026-11-22T12:00:00Z"}}

    assert _post(trainings, pod, said) == 200

    status = eventually(
        lambda: ((trainings.get("loratrainingjob", "reporting") or {}).get("status") or {}).get("trainerStatus"),
        "progress in the status",
    )
    assert (status["progressPercentage"], status["currentStep"], status["metrics"]) == (10, 6, metrics)


def test_a_pod_of_another_training_reports_nothing(trainings: Trainings) -> None:
    trainings.apply(trainings.job("watched"), trainings.job("nosy"))
    watched, nosy = trainings.pod("watched"), trainings.pod("nosy")

    assert _post(trainings, watched, {"trainerStatus": {}}, by=nosy) == 403


def test_a_result_whose_pod_is_gone_is_read_back_from_the_hub(trainings: Trainings, hub: Hub) -> None:
    trainings.apply(trainings.job("lost"))
    pod = trainings.pod("lost")
    uid = (trainings.get("loratrainingjob", "lost") or {})["metadata"]["uid"]
    api = HfApi(endpoint=hub.url, token="hf_write")
    api.create_repo("acme/lost", private=True)
    result = publishing("acme/lost", "").message.encode()
    commit = api.create_commit(
        "acme/lost",
        [CommitOperationAdd(path_in_repo=RESULT_FILE, path_or_fileobj=result)],
        commit_message="Publish an adapter of 60 steps",
        commit_description=f"{COMMIT_TRAILER}: {uid}",
    )
    trainings.actor.end(pod, Ending(0, message=""))

    done = trainings.until("lost", "Published")

    assert done["status"]["artifact"]["commit"] == commit.oid
    assert conditions(done)["Complete"] == "True"


def test_deleting_a_training_takes_its_job_and_leaves_what_is_served(trainings: Trainings, hub: Hub) -> None:
    trainings.apply(trainings.job("leaving", output__adapter={"name": "staying"}))
    pod = trainings.pod("leaving")
    trainings.actor.end(pod, publishing("acme/leaving", hub.add_model("acme/leaving", {"adapter_config.json": b"{}"})))
    run = trainings.until("leaving", "Published")["status"]["jobRef"]["name"]

    trainings.plane.run_kubectl("delete", "-n", trainings.namespace, "loratrainingjob/leaving", "--timeout=60s")

    for kind, name in (("job", run), ("configmap", run), ("pod", pod["metadata"]["name"])):
        eventually(lambda kind=kind, name=name: trainings.get(kind, name) is None, f"{kind} {name} to be gone")
    assert trainings.get("loraadapter", "staying") is not None
    assert hub.store.get(hubserver.RepoKey(type="model", namespace="acme", name="leaving")) is not None


def test_a_training_is_suspended_and_goes_on(trainings: Trainings) -> None:
    trainings.apply(trainings.job("pausing", suspend=True))
    paused = trainings.until("pausing", "Suspended")
    assert conditions(paused)["Suspended"] == "True"
    assert trainings.actor.pods("pausing") == []

    patch = json.dumps({"spec": {"suspend": False, "activeDeadlineSeconds": 3600}})
    trainings.plane.run_kubectl(
        "patch", "-n", trainings.namespace, "loratrainingjob/pausing", "--type=merge", "-p", patch
    )

    trainings.pod("pausing")
    run = trainings.get("job", paused["status"]["jobRef"]["name"])
    assert run is not None
    assert run["spec"]["activeDeadlineSeconds"] == 3600


def test_a_training_that_is_over_goes_when_its_time_is_up(trainings: Trainings, hub: Hub) -> None:
    trainings.apply(trainings.job("brief", ttlSecondsAfterFinished=3))
    commit = hub.add_model("acme/brief", {"adapter_config.json": b"{}"})
    trainings.actor.end(trainings.pod("brief"), publishing("acme/brief", commit))

    eventually(lambda: trainings.get("loratrainingjob", "brief") is None, "the object to go")


def test_a_training_that_is_over_costs_no_writes(trainings: Trainings, hub: Hub, operator: Operator) -> None:
    trainings.apply(trainings.job("quiet"))
    commit = hub.add_model("acme/quiet", {"adapter_config.json": b"{}"})
    trainings.actor.end(trainings.pod("quiet"), publishing("acme/quiet", commit))
    trainings.until("quiet", "Published")
    since = datetime.now(UTC)

    trainings.plane.run_kubectl("annotate", "-n", trainings.namespace, "loratrainingjob/quiet", "look=again")
    trainings.apply(trainings.job("marker"))
    trainings.pod("marker")

    written = audit.writes(trainings.plane.audit_log, user=operator.user, since=since)
    assert [one for one in written if "quiet" in one.name] == []


def _post(trainings: Trainings, pod: Object, body: Object, *, by: Object | None = None) -> int:
    """Report progress as the trainer in a pod does, with a token bound to a pod; return the answer's status."""
    [container] = pod["spec"]["containers"]
    url = next(entry["value"] for entry in container["env"] if entry["name"] == "KUBEFLOW_TRAINER_SERVER_URL")
    sources = next(volume for volume in pod["spec"]["volumes"] if volume["name"] == "spec")["projected"]["sources"]
    config_map = trainings.get("configmap", sources[0]["configMap"]["name"])
    assert config_map is not None
    bound = (by or pod)["metadata"]
    token = trainings.plane.run_kubectl(
        *("create", "token", "default", "-n", trainings.namespace, "--audience", PROGRESS_AUDIENCE),
        *("--bound-object-kind", "Pod", "--bound-object-name", bound["name"], "--bound-object-uid", bound["uid"]),
    ).strip()
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
    request = urllib.request.Request(url, data=json.dumps(body).encode(), headers=headers, method="POST")
    trust = ssl.create_default_context(cadata=config_map["data"]["progress-ca.crt"])
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=trust))
    try:
        with opener.open(request, timeout=30) as answer:
            status: int = answer.status
            return status
    except urllib.error.HTTPError as error:
        return error.code
