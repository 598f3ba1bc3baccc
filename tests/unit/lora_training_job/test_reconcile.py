"""The pass in a world in memory: what it writes, what it says, and that a kill between two calls changes nothing."""

from __future__ import annotations

import base64
import copy
import json
from datetime import timedelta
from typing import Any

import pytest

from lora_operator.api.lora_training_job import LoRATrainingJob
from lora_operator.errors import Blocked, Waiting
from lora_operator.labels import GROUP, Key
from lora_operator.lora_training_job import reconcile
from lora_operator.lora_training_job.manifests import run_name
from lora_operator.protocol.training import COMMIT_TRAILER, Artifact, Metric, Reason, Result, TrainerStatus
from support import samples
from support.training_world import NOW, KilledError, TrainingWorld, make_world, refused

Object = dict[str, Any]
KEY = Key("LoRATrainingJob", "default", "support-v1")
BOT = Key("LoRAAdapter", "default", "bot")
UID = "uid-LoRATrainingJob-support-v1"
ARTIFACT = Artifact(repo="acme/support-lora", commit="c0ffee", digest="sha256:" + "0" * 64, size_bytes=7)
PUBLISHED = Result(reason=Reason.PUBLISHED, message="60 steps", artifact=ARTIFACT, steps=60, metrics={"loss": "0.5"})
OWN_HUB = {"repo": "acme/support-lora", "tokenSecretRef": {"name": "hf", "key": "token"}}


def make(**fields: Any) -> TrainingWorld:
    """Return a world with one training job that is in order, with other values at paths (`__` for a dot)."""
    usual = {
        "metadata.generation": 1,
        "spec.engineRef": {"name": "vllm"},
        "spec.output": {"hub": OWN_HUB, "adapter": {"name": "bot"}},
    }
    given = {path.replace("__", "."): value for path, value in fields.items()}
    ground = make_world()
    for obj in (
        engine(),
        _object("v1", "ConfigMap", "support") | {"data": {"train.jsonl": "{}"}},
        _object("v1", "Secret", "hf") | {"data": {"token": base64.b64encode(b"hf_write").decode()}},
        samples.varied(samples.training_job("support-v1"), copy.deepcopy(usual | given)),
    ):
        ground.kube.put(obj)
    return ground


def engine(**status: Any) -> Object:
    adopted = {"type": "Adopted", "status": "True", "reason": "Adopted", "lastTransitionTime": "2026-11-22T11:00:00Z"}
    usual = {"conditions": [adopted], "baseModel": "acme/tiny-llama", "flags": {"maxLoraRank": 16}}
    return samples.engine("vllm") | {"status": usual | status}


def _object(api_version: str, kind: str, name: str) -> Object:
    return {"apiVersion": api_version, "kind": kind, "metadata": {"name": name, "namespace": "default"}}


def run_key(ground: TrainingWorld) -> Key:
    return Key("Job", "default", run_name(LoRATrainingJob.model_validate(ground.kube.objects[KEY])))


def run_of(ground: TrainingWorld) -> Object:
    return ground.kube.objects[run_key(ground)]


def set_run(ground: TrainingWorld, **status: Any) -> None:
    ground.kube.put(run_of(ground) | {"status": status})


def put_pod(ground: TrainingWorld, state: Object, name: str = "pod-1") -> None:
    run = run_of(ground)
    owner = {"kind": "Job", "name": run["metadata"]["name"], "uid": run["metadata"]["uid"], "controller": True}
    pod = _object("v1", "Pod", name)
    pod["metadata"] |= {"labels": run["spec"]["template"]["metadata"]["labels"], "ownerReferences": [owner]}
    status = {"phase": "Running", "containerStatuses": [{"name": "trainer", "state": state}]}
    ground.kube.put(pod | {"spec": run["spec"]["template"]["spec"], "status": status})


def end_pod(ground: TrainingWorld, result: Result, code: int = 0) -> None:
    message = result.model_dump_json(by_alias=True)
    put_pod(ground, {"terminated": {"exitCode": code, "reason": "Completed", "message": message}})


def fail_run(ground: TrainingWorld, reason: str) -> None:
    set_run(ground, conditions=[{"type": "Failed", "status": "True", "reason": reason, "message": "failed"}])


def status_of(ground: TrainingWorld) -> Object:
    status: Object = ground.kube.objects[KEY]["status"]
    return status


def condition(ground: TrainingWorld, kind: str) -> Object:
    return next((one for one in status_of(ground)["conditions"] if one["type"] == kind), {})


def told(ground: TrainingWorld, kind: str) -> tuple[str, str]:
    one = condition(ground, kind)
    return one.get("status", ""), one.get("reason", "")


async def settle(ground: TrainingWorld) -> float | None:
    """Run passes until they write nothing more."""
    for _ in range(10):
        before = len(ground.kube.writes)
        again = await reconcile(KEY, ground.world)
        if len(ground.kube.writes) == before:
            return again
    raise AssertionError(f"the passes do not come to rest: {ground.kube.writes}")


async def test_a_job_in_order_is_frozen_and_started() -> None:
    ground = make()

    await settle(ground)

    assert [write for write in ground.kube.writes if "Event" not in write] == [
        "apply ConfigMap",
        "apply Job",
        "apply LoRATrainingJob/status",
    ]
    assert told(ground, "Ready") == ("False", "Starting")
    assert told(ground, "Validated") == ("True", "Accepted")
    assert status_of(ground)["resolved"]["baseRevision"] == "model-commit-of-main"
    assert status_of(ground)["jobRef"] == {"name": run_key(ground).name}


async def test_a_published_adapter_is_pinned_and_served() -> None:
    ground = make()
    await settle(ground)
    end_pod(ground, PUBLISHED)

    await settle(ground)

    assert status_of(ground)["artifact"]["commit"] == "c0ffee"
    assert ground.kube.objects[BOT]["spec"]["source"]["hub"]["revision"] == "c0ffee"
    assert told(ground, "Complete") == ("True", "Published")
    assert told(ground, "Ready") == ("True", "Published")
    assert status_of(ground)["trainerStatus"]["progressPercentage"] == 100


@pytest.mark.parametrize("kill_at", range(24))
async def test_a_kill_before_or_after_any_write_changes_nothing_in_the_end(kill_at: int) -> None:
    wanted = await run_to_the_end(make())
    assert BOT in wanted
    ground = make()
    ground.kube.kill_at = kill_at

    got = await run_to_the_end(ground)

    assert got == wanted


async def run_to_the_end(ground: TrainingWorld) -> Object:
    """Train and publish, starting the operator anew whenever it dies; return everything but Events as it ends."""
    for act in (lambda _: None, lambda world: end_pod(world, PUBLISHED)):
        while True:
            try:
                if run_key(ground) in ground.kube.objects:
                    act(ground)
                await settle(ground)
                break
            except KilledError:
                ground = ground.restarted()
    return {key: _bare(obj) for key, obj in ground.kube.objects.items() if key.kind != "Event"}


def _bare(obj: Object) -> Object:
    text = json.dumps(obj | {"metadata": obj["metadata"] | {"resourceVersion": ""}}, sort_keys=True)
    bare: Object = json.loads(text)
    return bare


async def test_progress_is_written_when_it_has_differed_for_a_while() -> None:
    ground = make()
    await settle(ground)
    put_pod(ground, {"running": {}})
    await settle(ground)
    metrics = tuple(Metric(name=name, value=value) for name, value in {"current_step": "3", "total_steps": "9"}.items())
    ground.world.progress[KEY] = TrainerStatus(progress_percentage=33, metrics=metrics)

    wait = await reconcile(KEY, ground.world)

    assert "trainerStatus" not in status_of(ground)
    assert wait is not None
    assert 10 <= wait <= 13
    ground.clock.pass_by(wait)
    await reconcile(KEY, ground.world)
    said = status_of(ground)["trainerStatus"]
    assert (said["progressPercentage"], said["currentStep"], said["maxSteps"]) == (33, 3, 9)


async def test_reports_that_were_all_lost_change_nothing_in_the_end() -> None:
    ends = []
    for reported in (None, TrainerStatus(progress_percentage=50)):
        ground = make()
        await settle(ground)
        if reported is not None:
            ground.world.progress[KEY] = reported
            ground.clock.pass_by(20)
            await reconcile(KEY, ground.world)
        ground.clock.now = NOW
        end_pod(ground, PUBLISHED)
        await settle(ground)
        ends.append(status_of(ground))

    assert ends[0] == ends[1]


REFUSALS = {
    "engine missing": ({"spec__engineRef": {"name": "gone"}}, "EngineNotFound"),
    "data set missing": (
        {"spec__dataset__source": {"configMapRef": {"name": "gone", "key": "train.jsonl"}}},
        "DatasetNotFound",
    ),
    "data set's key missing": (
        {"spec__dataset__source": {"configMapRef": {"name": "support", "key": "gone.jsonl"}}},
        "DatasetNotFound",
    ),
    "rank too high": ({"spec__lora": {"r": 32}}, "RankTooHigh"),
    "another base": ({"spec__baseModel": {"name": "acme/other"}}, "BaseModelMismatch"),
    "no Secret": ({"spec__output__hub__tokenSecretRef": {"name": "gone", "key": "token"}}, "TokenSecretNotFound"),
}


@pytest.mark.parametrize("name", REFUSALS)
async def test_a_refusal_starts_nothing_and_stalls(name: str) -> None:
    fields, reason = REFUSALS[name]
    ground = make(**fields)

    again = await settle(ground)

    assert told(ground, "Ready") == ("False", reason)
    assert told(ground, "Validated") == ("False", reason)
    assert told(ground, "Stalled") == ("True", reason)
    assert again == 60
    assert run_key(ground) not in ground.kube.objects


async def test_the_hub_is_not_asked_again_at_once() -> None:
    ground = make()
    ground.hub.refusals["acme/tiny-llama"] = Blocked("RepositoryNotFound", "there is no acme/tiny-llama")
    await settle(ground)
    asked = len(ground.hub.asked)

    await settle(ground)

    assert len(ground.hub.asked) == asked
    ground.clock.pass_by(61)
    ground.hub.refusals.clear()
    await settle(ground)
    assert told(ground, "Validated") == ("True", "Accepted")


async def test_an_engine_that_is_not_adopted_yet_is_waited_for() -> None:
    ground = make()
    ground.kube.put(engine(conditions=[]))

    await settle(ground)

    assert told(ground, "Validated") == ("Unknown", "EngineNotReady")
    assert told(ground, "Reconciling") == ("True", "EngineNotReady")
    ground.kube.put(engine())
    await settle(ground)
    assert told(ground, "Validated") == ("True", "Accepted")


FAILURES = {
    "out of memory": ({"terminated": {"exitCode": 137, "reason": "OOMKilled"}}, "PodFailurePolicy", "OutOfMemory"),
    "limit of attempts": ({"terminated": {"exitCode": 1}}, "BackoffLimitExceeded", "TrainingFailed"),
    "deadline": ({"running": {}}, "DeadlineExceeded", "DeadlineExceeded"),
}


@pytest.mark.parametrize("name", FAILURES)
async def test_a_failed_job_is_told_by_its_cause(name: str) -> None:
    state, failed, reason = FAILURES[name]
    ground = make()
    await settle(ground)
    put_pod(ground, state)
    fail_run(ground, failed)

    await settle(ground)

    assert told(ground, "Failed") == ("True", reason)
    assert told(ground, "Stalled") == ("True", reason)
    assert status_of(ground)["completionTime"] == "2026-11-22T12:00:00Z"


async def test_a_result_whose_pod_is_gone_is_read_back_from_the_hub() -> None:
    ground = make()
    await settle(ground)
    lying = PUBLISHED.model_copy(update={"artifact": ARTIFACT.model_copy(update={"commit": ""})})
    ground.hub.commits[f"{COMMIT_TRAILER}: {UID}"] = "c0ffee"
    ground.hub.result = lying.model_dump_json(by_alias=True).encode()
    set_run(ground, conditions=[{"type": "Complete", "status": "True"}])

    await settle(ground)

    assert status_of(ground)["artifact"]["commit"] == "c0ffee"
    assert told(ground, "Complete") == ("True", "Published")


async def test_a_hub_that_is_down_denies_no_result() -> None:
    ground = make()
    await settle(ground)
    ground.hub.refusals["acme/support-lora"] = Waiting("HubUnavailable", "the Hub answered 503", after=15)
    set_run(ground, conditions=[{"type": "Complete", "status": "True"}])

    assert await settle(ground) == 15

    assert told(ground, "Failed") == ("False", "HubUnavailable")
    ground.hub.refusals.clear()
    await settle(ground)
    assert told(ground, "Failed") == ("True", "ResultLost")


async def test_a_job_that_somebody_deleted_is_made_again_as_it_was() -> None:
    ground = make()
    await settle(ground)
    before = run_of(ground)["spec"]
    ground.kube.drop(run_key(ground))

    await settle(ground)

    assert run_of(ground)["spec"] == before


async def test_a_job_that_somebody_deleted_after_it_published_is_not_made_again() -> None:
    ground = make()
    await settle(ground)
    ground.kube.drop(run_key(ground))
    ground.hub.commits[f"{COMMIT_TRAILER}: {UID}"] = "c0ffee"
    ground.hub.result = PUBLISHED.model_dump_json(by_alias=True).encode()

    await settle(ground)

    assert run_key(ground) not in ground.kube.objects
    assert told(ground, "Complete") == ("True", "Published")


async def test_suspension_and_deadline_reach_the_job_and_leave_its_template() -> None:
    ground = make()
    await settle(ground)
    template = run_of(ground)["spec"]["template"]
    ground.kube.put(samples.varied(ground.kube.objects[KEY], {"spec.suspend": True, "spec.activeDeadlineSeconds": 99}))

    await settle(ground)

    spec = run_of(ground)["spec"]
    assert (spec["suspend"], spec["activeDeadlineSeconds"], spec["template"]) == (True, 99, template)
    assert told(ground, "Suspended") == ("True", "Suspended")
    assert told(ground, "Reconciling") == ("", "")


async def test_an_adapter_that_somebody_else_made_is_left_alone() -> None:
    ground = make()
    ground.kube.put(samples.adapter("bot"))
    await settle(ground)
    end_pod(ground, PUBLISHED)

    await settle(ground)

    assert told(ground, "Ready") == ("False", "AdapterNameTaken")
    assert told(ground, "Published") == ("True", "Published")
    assert told(ground, "Complete") == ("False", "AdapterNameTaken")
    assert ground.kube.objects[BOT]["spec"]["source"]["hub"] == {"repo": "acme/support-lora"}
    ground.kube.drop(BOT)
    await settle(ground)
    assert told(ground, "Complete") == ("True", "Published")


async def test_an_adapter_of_an_earlier_job_of_this_name_gets_the_new_commit() -> None:
    ground = make()
    earlier = samples.adapter("bot")
    earlier["metadata"]["labels"] = {f"{GROUP}/training-job": "support-v1"}
    ground.kube.put(earlier)
    await settle(ground)
    end_pod(ground, PUBLISHED)

    await settle(ground)

    assert ground.kube.objects[BOT]["spec"]["source"]["hub"]["revision"] == "c0ffee"


async def test_an_adapter_that_the_user_deleted_is_not_made_again() -> None:
    ground = make()
    await settle(ground)
    end_pod(ground, PUBLISHED)
    await settle(ground)
    ground.kube.drop(BOT)

    await settle(ground)

    assert BOT not in ground.kube.objects


async def test_the_end_stands_whatever_becomes_of_the_job() -> None:
    ground = make()
    await settle(ground)
    end_pod(ground, PUBLISHED)
    await settle(ground)
    ground.kube.drop(run_key(ground))
    writes = len(ground.kube.writes)

    await settle(ground)

    assert len(ground.kube.writes) == writes


async def test_an_object_goes_when_its_time_is_up() -> None:
    ground = make(spec__ttlSecondsAfterFinished=100)
    await settle(ground)
    end_pod(ground, PUBLISHED)

    left = await settle(ground)

    assert left == timedelta(seconds=100).total_seconds()
    ground.clock.pass_by(101)
    await reconcile(KEY, ground.world)
    assert KEY not in ground.kube.objects
    assert BOT in ground.kube.objects


async def test_nothing_is_written_for_an_object_that_is_suspended_or_going() -> None:
    for change in (
        {"metadata.annotations": {f"{GROUP}/suspend": "true"}},
        {"metadata.deletionTimestamp": "2026-11-22T11:59:00Z"},
    ):
        ground = make()
        ground.kube.put(samples.varied(ground.kube.objects[KEY], change))

        await settle(ground)

        assert ground.kube.writes == []


async def test_a_job_that_the_apiserver_refuses_is_told_in_its_words() -> None:
    ground = make()
    ground.kube.refuse["Job"] = refused(403, "exceeded quota: gpus")

    assert await reconcile(KEY, ground.world) == 60

    assert told(ground, "Ready") == ("False", "JobRefused")
    assert "exceeded quota: gpus" in condition(ground, "Ready")["message"]


async def test_what_is_forgotten_is_forgotten_everywhere() -> None:
    ground = make()
    await settle(ground)
    ground.world.progress[KEY] = TrainerStatus()
    ground.kube.drop(KEY)

    assert await reconcile(KEY, ground.world) is None

    assert ground.world.progress == {}
