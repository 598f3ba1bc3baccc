"""Reading a trainer's pod."""

from __future__ import annotations

from typing import Any

import pytest

from lora_operator.lora_training_job.attempts import Attempt, attempt
from lora_operator.protocol.training import ExitCode, Reason, Result

Object = dict[str, Any]
RESULT = Result(reason=Reason.DATASET_INVALID, message="data set is empty")
DISRUPTED = [{"type": "DisruptionTarget", "status": "True"}]


def pod(state: Object | None = None, **status: Any) -> Object:
    containers = [] if state is None else [{"name": "trainer", "state": state}]
    return {
        "metadata": {"name": "p"},
        "spec": {"containers": [{"name": "trainer", "image": "example.org/trainer:1"}]},
        "status": {"phase": "Pending", "containerStatuses": containers} | status,
    }


def ended(code: int, message: str = "", reason: str = "Error", **status: Any) -> Attempt:
    return attempt(pod({"terminated": {"exitCode": code, "reason": reason, "message": message}}, **status))


def test_a_result_is_taken_at_its_word() -> None:
    end = ended(65, RESULT.model_dump_json(by_alias=True)).ended

    assert end is not None
    assert (end.reason, end.message, end.result) == ("DatasetInvalid", "data set is empty", RESULT)


@pytest.mark.parametrize("code", [137, 1])
def test_a_trainer_killed_for_its_memory_names_the_limit(code: int) -> None:
    end = ended(code, reason="OOMKilled").ended

    assert end is not None
    assert (end.reason, end.hopeless) == ("OutOfMemory", True)
    assert "raise spec.resources.limits.memory" in end.message


def test_a_trainer_that_somebody_else_killed_is_not_told_to_need_memory() -> None:
    end = ended(137).ended

    assert end is not None
    assert (end.reason, end.hopeless, end.disrupted) == ("Killed", False, False)
    assert "raise" not in end.message


def test_a_trainer_that_left_nothing_is_told_by_its_exit_code() -> None:
    end = ended(3, "Traceback").ended

    assert end is not None
    assert end.reason == "TrainingFailed"
    assert "exit code 3" in end.message
    assert "Traceback" in end.message


@pytest.mark.parametrize(
    "disrupted", [ended(int(ExitCode.PREEMPTED)), ended(1, conditions=DISRUPTED), ended(137, conditions=DISRUPTED)]
)
def test_what_the_cluster_ended_does_not_count(disrupted: Attempt) -> None:
    assert disrupted.ended is not None
    assert disrupted.ended.disrupted


def test_a_pod_that_was_evicted_before_it_ran_has_ended() -> None:
    end = attempt(pod(phase="Failed", reason="Evicted", message="node was low on memory", conditions=DISRUPTED)).ended

    assert end is not None
    assert (end.reason, end.disrupted) == ("Evicted", True)


HINDRANCES = {
    "image": (
        {"waiting": {"reason": "ErrImagePull", "message": "not found"}},
        {},
        ("TrainerImageUnavailable", "example.org/trainer:1"),
    ),
    "back-off": (
        {"waiting": {"reason": "ImagePullBackOff"}},
        {},
        ("TrainerImageUnavailable", "trainer.image"),
    ),
    "invalid name": ({"waiting": {"reason": "InvalidImageName"}}, {}, ("TrainerImageUnavailable", "trainer.image")),
    "config": (
        {"waiting": {"reason": "CreateContainerConfigError", "message": 'secret "hf" not found'}},
        {},
        ("CreateContainerConfigError", 'secret "hf" not found'),
    ),
    "no node": (
        None,
        {"conditions": [{"type": "PodScheduled", "status": "False", "message": "0/2 nodes: no nvidia.com/gpu"}]},
        ("Unschedulable", "nvidia.com/gpu"),
    ),
}


@pytest.mark.parametrize("name", HINDRANCES)
def test_what_keeps_a_pod_from_starting_is_told(name: str) -> None:
    state, status, (reason, part) = HINDRANCES[name]

    found = attempt(pod(state, **status))

    assert found.hindrance is not None
    assert found.hindrance[0] == reason
    assert part in found.hindrance[1]
    assert found.ended is None


def test_a_pod_that_is_being_made_has_nothing_to_tell() -> None:
    assert attempt(pod({"waiting": {"reason": "ContainerCreating"}})) == Attempt(pod="p")


def test_a_pod_that_runs_is_not_hindered_by_what_was_before() -> None:
    late = [{"type": "PodScheduled", "status": "False", "message": "no nodes"}]

    assert attempt(pod({"running": {}}, phase="Running", conditions=late)) == Attempt(pod="p", running=True)
