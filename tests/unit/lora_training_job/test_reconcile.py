"""The pass in a world in memory: what it writes, what it says, and that a kill between two calls changes nothing."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import pytest

from lora_operator.errors import Blocked
from lora_operator.labels import Key
from lora_operator.lora_training_job import reconcile
from lora_operator.protocol.door import Base
from lora_operator.protocol.training import Metric, TrainerStatus
from support.adapters import TINY_LLAMA
from support.memory_world import NOW, KilledError, TrainingWorld
from support.training_passes import (
    BOT,
    COMMIT,
    KEY,
    PUBLISHED,
    end_pod,
    make,
    make_engine,
    put_pod,
    run_key,
    run_of,
    settle,
    status_of,
    told,
)

Object = dict[str, Any]
ENGINE = Key("LoRAEngine", KEY.namespace, "vllm")


async def test_a_job_in_order_is_frozen_and_started() -> None:
    ground = make()

    await settle(ground)

    assert [write for write in ground.kube.writes if "Event" not in write] == [
        "apply ConfigMap",
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

    assert status_of(ground)["artifact"]["commit"] == COMMIT
    assert ground.kube.objects[BOT]["spec"]["source"]["hub"]["revision"] == COMMIT
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


async def test_every_attempt_trains_on_the_data_set_as_it_was_at_the_start() -> None:
    ground = make()
    await settle(ground)
    source = ground.kube.objects[Key("ConfigMap", KEY.namespace, "support")]
    copy = Key("ConfigMap", KEY.namespace, f"{run_key(ground).name}-data")
    sources = run_of(ground)["spec"]["template"]["spec"]["volumes"][0]["projected"]["sources"]
    assert [one["configMap"]["name"] for one in sources] == [run_key(ground).name, copy.name]

    ground.kube.put(source | {"data": {"train.jsonl": "another line"}})
    ground.kube.drop(run_key(ground))
    await settle(ground)

    assert ground.kube.objects[copy]["data"] == source["data"]
    assert ground.kube.objects[copy]["metadata"]["ownerReferences"][0]["name"] == KEY.name
    revision = hashlib.sha256(source["data"]["train.jsonl"].encode()).hexdigest()
    assert status_of(ground)["resolved"]["datasetRevision"] == f"sha256:{revision}"


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
    "twice the rank too high": ({"spec__lora": {"r": 16, "initLoraWeights": "Pissa"}}, "RankTooHigh"),
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
    ground.kube.put(make_engine(conditions=[]))

    await settle(ground)

    assert told(ground, "Validated") == ("Unknown", "EngineNotReady")
    assert told(ground, "Reconciling") == ("True", "EngineNotReady")
    ground.kube.put(make_engine())
    await settle(ground)
    assert told(ground, "Validated") == ("True", "Accepted")


async def test_what_the_engine_and_its_base_are_decides_before_a_gpu_is_asked_for() -> None:
    flags = {"maxLoraRank": 16, "dtype": "auto"}
    ground = make(spec__lora={"targetModules": ["q_proj", "lm_head"]})
    ground.kube.put(make_engine(flags=flags, engine={"version": "0.32.0+cpu", "device": "cuda"}))
    ground.world.bases[ENGINE] = Base(name="acme/tiny-llama", config=TINY_LLAMA.config() | {"dtype": "bfloat16"})

    await settle(ground)

    assert told(ground, "Ready") == ("False", "LmHeadNotSupported")

    ground.kube.put(make_engine(flags=flags, engine={"version": "0.32.0", "device": "cuda"}))
    await settle(ground)

    assert told(ground, "Ready") == ("False", "Starting")
    assert frozen_spec(ground)["engine"] == {
        "type": "VLLM",
        "version": "0.32.0",
        "device": "cuda",
        "maxLoraRank": 16,
        "dtype": "bfloat16",
    }


async def test_another_base_than_the_engine_s_tells_nothing_of_the_training() -> None:
    ground = make()
    ground.kube.put(make_engine(flags={"maxLoraRank": 16, "dtype": "auto"}))
    ground.world.bases[ENGINE] = Base(name="acme/another", config={"dtype": "bfloat16"})

    await settle(ground)

    assert frozen_spec(ground)["engine"] == {"type": "VLLM", "maxLoraRank": 16}


def frozen_spec(ground: TrainingWorld) -> Object:
    """Return the spec that the trainer reads."""
    config_map = ground.kube.objects[Key("ConfigMap", KEY.namespace, run_key(ground).name)]
    spec: Object = json.loads(config_map["data"]["spec.json"])
    return spec
