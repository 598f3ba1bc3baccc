"""How a training ends, and what of its end stands whatever happens to Job, pods, Hub and LoRAAdapter after it."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from lora_operator.errors import Waiting
from lora_operator.labels import GROUP, Key
from lora_operator.lora_training_job import reconcile
from lora_operator.protocol.training import COMMIT_TRAILER, Metric, Reason, Result, TrainerStatus
from support import samples
from support.memory_world import refused
from support.training_passes import (
    ARTIFACT,
    BOT,
    COMMIT,
    KEY,
    PUBLISHED,
    UID,
    condition,
    end_pod,
    fail_run,
    make,
    put_pod,
    run_key,
    run_of,
    set_run,
    settle,
    status_of,
    told,
)

Object = dict[str, Any]
TOKEN = Key("Secret", KEY.namespace, "hf")
INTERRUPTED = Result(reason=Reason.PREEMPTED, message="at step 41", checkpoint_step=40).model_dump_json(by_alias=True)


FAILURES = {
    "out of memory": ({"terminated": {"exitCode": 137, "reason": "OOMKilled"}}, "PodFailurePolicy", "OutOfMemory"),
    "limit of attempts": ({"terminated": {"exitCode": 1}}, "BackoffLimitExceeded", "TrainingFailed"),
    "deadline": ({"running": {}}, "DeadlineExceeded", "DeadlineExceeded"),
}


@pytest.mark.parametrize(
    ("state", "failed"),
    [
        pytest.param({"terminated": {"exitCode": 137}}, "PodFailurePolicy", id="killed after its commit"),
        pytest.param(
            {"terminated": {"exitCode": 69, "message": '{"version": 1, "reason": "HubUnavailable", "message": "no"}'}},
            "BackoffLimitExceeded",
            id="its commit was never answered",
        ),
    ],
)
async def test_a_failure_after_which_the_hub_has_the_commit_is_none(state: Object, failed: str) -> None:
    ground = make()
    await settle(ground)
    ground.hub.commits[f"{COMMIT_TRAILER}: {UID}"] = COMMIT
    ground.hub.result = PUBLISHED.model_dump_json(by_alias=True).encode()
    put_pod(ground, state)
    fail_run(ground, failed)

    await settle(ground)

    assert told(ground, "Complete") == ("True", "Published")


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
    ground.hub.commits[f"{COMMIT_TRAILER}: {UID}"] = COMMIT
    ground.hub.result = lying.model_dump_json(by_alias=True).encode()
    set_run(ground, conditions=[{"type": "Complete", "status": "True"}])

    await settle(ground)

    assert status_of(ground)["artifact"]["commit"] == COMMIT
    assert told(ground, "Complete") == ("True", "Published")


@pytest.mark.parametrize(
    "lie", [{"repo": "acme/elsewhere"}, {"commit": "main"}, {"digest": "sha256:0"}, {"size_bytes": -1}]
)
async def test_a_result_that_can_not_be_so_is_taken_for_nothing(lie: Object) -> None:
    ground = make()
    await settle(ground)
    end_pod(ground, PUBLISHED.model_copy(update={"artifact": ARTIFACT.model_copy(update=lie)}))

    await settle(ground)

    assert "artifact" not in status_of(ground)


async def test_what_a_trainer_says_beyond_all_bounds_is_cut() -> None:
    ground = make()
    await settle(ground)
    metrics = {f"m{number}" + "x" * 200: "1" * 200 for number in range(40)}
    end_pod(ground, PUBLISHED.model_copy(update={"steps": -1, "metrics": metrics}))

    await settle(ground)

    said = status_of(ground)["trainerStatus"]
    assert "currentStep" not in said
    assert len(said["metrics"]) == 32
    assert {len(metric["name"]) for metric in said["metrics"]} == {128}


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


async def test_what_is_published_is_published_though_its_token_is_gone() -> None:
    ground = make()
    await settle(ground)
    ground.kube.drop(TOKEN)
    end_pod(ground, PUBLISHED)
    set_run(ground, conditions=[{"type": "Complete", "status": "True"}])

    await settle(ground)

    assert status_of(ground)["artifact"]["commit"] == COMMIT
    assert told(ground, "Complete") == ("True", "Published")


async def test_no_result_is_lost_for_want_of_a_token() -> None:
    ground = make()
    await settle(ground)
    secret = ground.kube.objects[TOKEN]
    ground.kube.drop(TOKEN)
    ground.hub.commits[f"{COMMIT_TRAILER}: {UID}"] = COMMIT
    ground.hub.result = PUBLISHED.model_dump_json(by_alias=True).encode()
    set_run(ground, conditions=[{"type": "Complete", "status": "True"}])

    await settle(ground)

    assert told(ground, "Failed") == ("False", "TokenSecretNotFound")
    assert told(ground, "Stalled") == ("True", "TokenSecretNotFound")
    message = condition(ground, "Ready")["message"]
    assert message.startswith("the trainer ended well")
    assert "spec.output.hub.tokenSecretRef" in message
    ground.kube.put(secret)
    await settle(ground)
    assert told(ground, "Complete") == ("True", "Published")


async def test_a_training_killed_for_its_memory_is_not_tried_again_and_one_killed_otherwise_is() -> None:
    ground = make()
    await settle(ground)
    put_pod(ground, {"terminated": {"exitCode": 137, "reason": "Error"}})
    await settle(ground)
    assert run_of(ground)["spec"]["backoffLimit"] == 3
    assert told(ground, "Ready") == ("False", "Retrying")
    assert "Killed" in condition(ground, "Ready")["message"]

    put_pod(ground, {"terminated": {"exitCode": 137, "reason": "OOMKilled"}}, "pod-2")
    await settle(ground)

    assert run_of(ground)["spec"]["backoffLimit"] == 0
    fail_run(ground, "BackoffLimitExceeded")
    await settle(ground)
    assert told(ground, "Failed") == ("True", "OutOfMemory")
    assert "attempt" not in condition(ground, "Ready")["message"]


async def test_preemptions_are_counted_once_each_though_their_pods_go() -> None:
    ground = make(spec__maxPreemptions=2)
    await settle(ground)
    for number in range(2):
        put_pod(ground, {"terminated": {"exitCode": 75, "message": INTERRUPTED}}, f"pod-{number}")
        await settle(ground)
        await settle(ground)
        ground.kube.drop(Key("Pod", KEY.namespace, f"pod-{number}"))
        await settle(ground)
    status = status_of(ground)
    assert (status["preemptions"], status["checkpointStep"]) == (2, 40)
    assert "activeDeadlineSeconds" not in run_of(ground)["spec"]

    put_pod(ground, {"terminated": {"exitCode": 75, "message": INTERRUPTED}}, "pod-3")
    await settle(ground)

    assert run_of(ground)["spec"]["activeDeadlineSeconds"] == 1, "the Job itself counts none of them"
    fail_run(ground, "DeadlineExceeded")
    await settle(ground)
    assert told(ground, "Failed") == ("True", "PreemptedTooOften")
    assert "spec.maxPreemptions" in condition(ground, "Ready")["message"]


async def test_a_pod_that_suspending_ended_is_no_preemption() -> None:
    ground = make(spec__maxPreemptions=0, spec__suspend=True)
    await settle(ground)
    put_pod(ground, {"terminated": {"exitCode": 75, "message": INTERRUPTED}})

    await settle(ground)

    assert "preemptions" not in status_of(ground)
    assert told(ground, "Suspended") == ("True", "Suspended")


async def test_what_attempts_tell_of_themselves_is_kept() -> None:
    ground = make()
    await settle(ground)
    put_pod(ground, {"terminated": {"exitCode": 75, "message": INTERRUPTED}}, "pod-1")
    put_pod(ground, {"running": {}}, "pod-2")
    ground.world.progress[KEY] = TrainerStatus(metrics=(Metric(name="memory_peak_bytes", value="2e9"),))

    await settle(ground)

    status = status_of(ground)
    assert (status["resumes"], status["checkpointStep"], status["peakMemoryBytes"]) == (1, 40, 2_000_000_000)
    metrics = {"peak_memory_bytes": "3000000000"}
    put_pod(ground, {"running": {}}, "pod-2")
    end_pod(ground, PUBLISHED.model_copy(update={"metrics": metrics, "resumed_from_step": 40}))
    await settle(ground)
    assert status_of(ground)["peakMemoryBytes"] == 3_000_000_000


@pytest.mark.parametrize("nonsense", ["nan", "-1", "1e300", "much"])
async def test_a_peak_that_is_no_amount_is_none(nonsense: str) -> None:
    ground = make()
    await settle(ground)
    ground.world.progress[KEY] = TrainerStatus(metrics=(Metric(name="memory_peak_bytes", value=nonsense),))

    await settle(ground)

    assert "peakMemoryBytes" not in status_of(ground)


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
    ground.hub.commits[f"{COMMIT_TRAILER}: {UID}"] = COMMIT
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

    assert ground.kube.objects[BOT]["spec"]["source"]["hub"]["revision"] == COMMIT


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
