"""The objects of a training: what is frozen, and what the trainer's pod may and gets."""

from __future__ import annotations

import copy
import dataclasses
import json
from typing import Any

import pytest

from lora_operator.adapter import EngineLimits
from lora_operator.api.lora_training_job import LoRATrainingJob
from lora_operator.labels import ROLE, TRAINING_JOB
from lora_operator.lora_training_job.manifests import Pins, adapter, frozen, frozen_spec, run_name, timed
from lora_operator.protocol import training
from lora_operator.settings import Settings
from support import samples

Object = dict[str, Any]
PINS = Pins(base_revision="a" * 40, dataset_revision="b" * 40)
SETTINGS = Settings(
    trainer_image="example.org/trainer:1",
    image_pull_secrets=("pull",),
    progress_url="https://lora-operator.lora-system.svc",
    pod_env='[{"name": "HF_ENDPOINT", "value": "http://hub"}, {"name": "HOME", "value": "/root"}]',
    trainer_env='[{"name": "OMP_NUM_THREADS", "value": "2"}]',
    trainer_volumes='[{"name": "env", "persistentVolumeClaim": {"claimName": "env"}}]',
    trainer_volume_mounts='[{"name": "env", "mountPath": "/opt/lora/env"}]',
)
PROGRESS_CA = "the authority"


def job(name: str = "support-v1", uid: str = "1234", **fields: Any) -> LoRATrainingJob:
    given = {f"spec.{path.replace('__', '.')}": value for path, value in fields.items()}
    obj = samples.varied(samples.training_job(name, "team-a"), copy.deepcopy({"metadata.uid": uid} | given))
    return LoRATrainingJob.model_validate(obj)


def run(of: LoRATrainingJob, progress_ca: str = PROGRESS_CA) -> Object:
    config_map = frozen(of, None, PINS, settings=SETTINGS, progress_ca=progress_ca)
    return timed(config_map["data"]["job.json"], {"suspend": of.spec.suspend})


def pod(of: LoRATrainingJob, progress_ca: str = PROGRESS_CA) -> Object:
    spec: Object = run(of, progress_ca)["spec"]["template"]["spec"]
    return spec


def env(of: LoRATrainingJob, progress_ca: str = PROGRESS_CA) -> dict[str, Any]:
    [container] = pod(of, progress_ca)["containers"]
    names = [entry["name"] for entry in container["env"]]
    assert len(names) == len(set(names))
    return {entry["name"]: entry.get("value", entry.get("valueFrom")) for entry in container["env"]}


@pytest.mark.parametrize("name", ["a", "support-v1", "a.b", "x" * 63, "x" * 51 + ".y" * 6, "a" + "-" * 61 + "b"])
def test_the_name_of_the_job_fits_a_label(name: str) -> None:
    made = run_name(job(name))

    assert len(made) <= 63
    assert made == run_name(job(name))
    assert "." not in made
    assert made[0].isalnum()


def test_another_object_of_the_same_name_has_another_job() -> None:
    assert run_name(job(uid="1")) != run_name(job(uid="2"))


def test_names_that_begin_alike_have_jobs_of_their_own() -> None:
    assert run_name(job("x" * 62 + "a", uid="1")) != run_name(job("x" * 62 + "b", uid="2"))


def test_the_frozen_spec_is_pinned_and_knows_its_engine() -> None:
    limits = EngineLimits(version="0.32.0", device="cuda", max_lora_rank=16, dtype="bfloat16")
    hub = {"hub": {"repo": "acme/rows", "revision": "v1"}}

    spec = frozen_spec(job(dataset__source=hub), limits, PINS)

    assert spec["baseModel"]["revision"] == "a" * 40
    assert spec["dataset"]["source"]["hub"] == {"repo": "acme/rows", "revision": "b" * 40}
    assert spec["engine"] == {
        "type": "VLLM",
        "version": "0.32.0",
        "device": "cuda",
        "maxLoraRank": 16,
        "dtype": "bfloat16",
    }


def test_everything_is_owned_and_labelled() -> None:
    one = job()
    config_map = frozen(one, None, PINS, settings=SETTINGS, progress_ca=PROGRESS_CA)

    for obj in (config_map, run(one)):
        [owner] = obj["metadata"]["ownerReferences"]
        assert (owner["uid"], owner["controller"], owner["blockOwnerDeletion"]) == ("1234", True, True)
        assert obj["metadata"]["labels"][TRAINING_JOB] == "support-v1"
    labels = run(one)["spec"]["template"]["metadata"]["labels"]
    assert (labels[TRAINING_JOB], labels[ROLE]) == ("support-v1", "trainer")


def test_the_pod_is_within_the_restricted_standard_and_has_no_token_of_the_apiservers() -> None:
    spec = pod(job())
    [container] = spec["containers"]

    assert spec["securityContext"]["runAsNonRoot"]
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert (spec["automountServiceAccountToken"], spec["enableServiceLinks"]) == (False, False)
    assert {next(iter(volume.keys() - {"name"})) for volume in spec["volumes"]} == {
        "projected",
        "emptyDir",
        "persistentVolumeClaim",
    }


def test_resources_are_the_jobs_own_or_those_of_the_installation() -> None:
    settings = dataclasses.replace(SETTINGS, trainer_resources='{"limits": {"memory": "4Gi"}}')
    asked = {"limits": {"nvidia.com/gpu": 1}}

    found = []
    for one in (job(), job(resources=asked)):
        made = frozen(one, None, PINS, settings=settings, progress_ca=PROGRESS_CA)
        found.append(json.loads(made["data"]["job.json"])["spec"]["template"]["spec"]["containers"][0]["resources"])

    assert found == [{"limits": {"memory": "4Gi"}}, asked]


def test_tokens_are_named_and_never_copied() -> None:
    ref = {"name": "hf", "key": "token"}
    one = job(baseModel__tokenSecretRef=ref, output__hub__tokenSecretRef=ref)

    given = env(one)

    assert given[training.ENV_BASE_TOKEN] == {"secretKeyRef": ref}
    assert given[training.ENV_OUTPUT_TOKEN] == {"secretKeyRef": ref}
    assert training.ENV_DATASET_TOKEN not in given


def test_the_installation_s_settings_reach_the_trainer_but_take_nothing_of_ours() -> None:
    spec, given = pod(job()), env(job())

    assert given["HF_ENDPOINT"] == "http://hub"
    assert given["OMP_NUM_THREADS"] == "2"
    assert given["HOME"] == training.WORK_PATH
    assert spec["imagePullSecrets"] == [{"name": "pull"}]
    assert {"name": "env", "mountPath": "/opt/lora/env"} in spec["containers"][0]["volumeMounts"]


def test_progress_is_reported_with_a_token_for_nobody_else() -> None:
    given = env(job())
    [token] = [one for one in pod(job())["volumes"] if one["name"] == "progress-token"]

    assert given["KUBEFLOW_TRAINER_SERVER_URL"].endswith(".svc/v1/progress/team-a/support-v1/1234")
    source = token["projected"]["sources"][0]["serviceAccountToken"]
    assert source["audience"] == training.PROGRESS_AUDIENCE


def test_without_a_progress_endpoint_the_trainer_reports_to_nobody() -> None:
    assert not any(name.startswith("KUBEFLOW") for name in env(job(), ""))
    assert [volume["name"] for volume in pod(job(), "")["volumes"]] == ["spec", "work", "tmp", "env"]


def test_files_lie_where_the_protocol_says() -> None:
    sources = pod(job())["volumes"][0]["projected"]["sources"]

    paths = {f"/etc/lora-train/{item['path']}" for source in sources for item in source["configMap"]["items"]}
    assert paths == {
        training.SPEC_PATH,
        training.PROGRESS_CA_PATH,
        f"{training.DATA_PATH}/train.jsonl",
    }


def test_a_data_set_on_a_claim_is_mounted_to_be_read_where_the_protocol_says() -> None:
    spec = pod(job(dataset__source={"pvc": {"claimName": "rows", "path": "v3/train.jsonl"}}))
    [container] = spec["containers"]

    claim = {"claimName": "rows", "readOnly": True}
    assert {"name": "dataset", "persistentVolumeClaim": claim} in spec["volumes"]
    assert {"name": "dataset", "mountPath": training.CLAIM_PATH, "readOnly": True} in container["volumeMounts"]


def test_an_adapter_to_go_on_from_is_pinned_and_its_token_named() -> None:
    start = {"hub": {"repo": "acme/first", "revision": "main", "tokenSecretRef": {"name": "first", "key": "token"}}}
    one = job(lora__initFrom=start)
    pins = dataclasses.replace(PINS, adapter_revision="c" * 40)

    assert frozen_spec(one, None, pins)["lora"]["initFrom"]["hub"]["revision"] == "c" * 40
    assert env(one)[training.ENV_ADAPTER_TOKEN] == {"secretKeyRef": {"name": "first", "key": "token"}}


def test_checkpoints_lie_on_the_claim_under_the_job_s_uid() -> None:
    spec = pod(job(checkpoint={"volume": {"claimName": "kept"}, "gracePeriodSeconds": 300}))
    [container] = spec["containers"]

    assert {"name": "state", "persistentVolumeClaim": {"claimName": "kept"}} in spec["volumes"]
    assert {"name": "state", "mountPath": training.STATE_PATH} in container["volumeMounts"]
    assert container["args"] == ["--output", f"{training.STATE_PATH}/1234"]
    assert spec["terminationGracePeriodSeconds"] == 300


def test_without_checkpoints_nothing_is_mounted_for_them() -> None:
    spec = pod(job())

    assert "state" not in {volume["name"] for volume in spec["volumes"]}
    assert "args" not in spec["containers"][0]
    assert spec["terminationGracePeriodSeconds"] == 45


def test_a_volume_that_is_lost_with_the_pod_is_bounded_as_asked_for() -> None:
    def state(**volume: Any) -> Object:
        [found] = [one for one in pod(job(checkpoint={"volume": volume}))["volumes"] if one["name"] == "state"]
        return found

    assert state(emptyDir={"sizeLimit": "2Gi"}) == {"name": "state", "emptyDir": {"sizeLimit": "2Gi"}}
    assert state() == {"name": "state", "emptyDir": {}}


def test_a_new_claim_is_made_the_trainer_s_unless_the_installation_has_claims_of_its_own() -> None:
    one = job(checkpoint={"volume": {"claimName": "kept"}})
    alone = dataclasses.replace(SETTINGS, trainer_volumes="[]", trainer_volume_mounts="[]")
    made = frozen(one, None, PINS, settings=alone, progress_ca=PROGRESS_CA)["data"]["job.json"]
    context = json.loads(made)["spec"]["template"]["spec"]["securityContext"]

    assert (context["fsGroup"], context["fsGroupChangePolicy"]) == (10001, "OnRootMismatch")
    assert "fsGroup" not in pod(one)["securityContext"]
    assert "fsGroup" not in pod(job())["securityContext"]


def test_what_would_end_the_same_way_is_not_tried_again_and_what_the_cluster_ended_does_not_count() -> None:
    ignored, preempted, final = run(job())["spec"]["podFailurePolicy"]["rules"]

    assert ignored["onPodConditions"] == [{"type": "DisruptionTarget", "status": "True"}]
    assert (preempted["action"], preempted["onExitCodes"]["values"]) == ("Ignore", [75])
    assert (final["action"], final["onExitCodes"]["values"]) == ("FailJob", [64, 65, 76, 77, 78])


def test_what_may_change_is_not_frozen() -> None:
    one = job(suspend=True, activeDeadlineSeconds=60)
    made = frozen(one, None, PINS, settings=SETTINGS, progress_ca=PROGRESS_CA)["data"]["job.json"]

    assert "suspend" not in json.loads(made)["spec"]
    changed = timed(made, {"suspend": True, "activeDeadlineSeconds": 60})
    assert changed["spec"] == json.loads(made)["spec"] | {"suspend": True, "activeDeadlineSeconds": 60}


def test_the_adapter_is_what_was_asked_for() -> None:
    wanted = {"name": "bot", "servedName": "support-bot", "tenants": [{"namespace": "team-b"}]}
    ref = {"name": "hf", "key": "token"}
    one = job(
        engineRef={"name": "vllm", "namespace": "models"},
        output={"hub": {"repo": "acme/support-lora", "tokenSecretRef": ref}, "adapter": wanted},
    )

    made = adapter(one, commit="c0ffee")

    assert made["metadata"] == {
        "name": "bot",
        "namespace": "team-a",
        "labels": {TRAINING_JOB: "support-v1", "app.kubernetes.io/managed-by": "lora-operator"},
    }
    assert made["spec"] == {
        "source": {"hub": {"repo": "acme/support-lora", "revision": "c0ffee", "tokenSecretRef": ref}},
        "baseModel": "acme/tiny-llama",
        "engineRef": {"name": "vllm", "namespace": "models"},
        "servedName": "support-bot",
        "tenants": [{"namespace": "team-b"}],
    }
