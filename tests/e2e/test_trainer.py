"""The real lora-train on the tiny model: it learns, publishes once, reports, and ends as documented if it fails."""

from __future__ import annotations

import json
import signal
import struct
import subprocess
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from huggingface_hub import HfApi

import hubserver
from imagebuild import engine
from lora_operator.adapter import EngineLimits, base_from_config, inspect, open_directory
from lora_operator.protocol.training import COMMIT_TRAILER, ExitCode, Reason
from support import real_trainer
from support.real_trainer import BASE, CHAT, REPO, Trainer, spec
from support.trainer_results import DATASET_FAULTS, DatasetFault
from tinymodel import cached


def output(repo: str) -> dict[str, Any]:
    return {"hub": {"repo": repo}}


def commits_of(api: HfApi, repo: str, *, job_uid: str) -> list[str]:
    trailer = f"{COMMIT_TRAILER}: {job_uid}"
    return [commit.commit_id for commit in api.list_repo_commits(repo) if trailer in commit.message.splitlines()]


def exists(api: HfApi, repo: str) -> bool:
    return api.repo_exists(repo)


def test_an_adapter_is_trained_reported_and_published_once(trainer: Trainer, api: HfApi, tmp_path: Path) -> None:
    (tmp_path / "token").write_text("progress-token\n")
    with real_trainer.progress_server() as (url, arrived):
        first = trainer.run(
            spec(),
            LORA_TRAINING_JOB_UID="uid-1",
            KUBEFLOW_TRAINER_SERVER_URL=url,
            KUBEFLOW_TRAINER_SERVER_TOKEN=str(tmp_path / "token"),
        )
    assert (first.exit_code, first.result.reason) == (ExitCode.OK, Reason.PUBLISHED)

    # It learns.
    assert first.result.steps == 20
    assert float(first.result.metrics["loss"]) < float(first.result.metrics["first_loss"]) - 0.5

    # One commit, and its digest is what the adapter library makes of the published files.
    artifact = first.result.artifact
    assert artifact is not None
    assert commits_of(api, REPO, job_uid="uid-1") == [artifact.commit]
    published = Path(api.snapshot_download(REPO, revision=artifact.commit, local_dir=tmp_path / "published"))
    base = base_from_config(json.loads((cached.ensure() / "config.json").read_text()))
    verdict = inspect(open_directory(published), base, EngineLimits(max_lora_rank=16), base_name=BASE)
    assert verdict.servable, verdict.message()
    assert verdict.findings == ()
    assert (verdict.summary.digest, verdict.summary.size_bytes) == (artifact.digest, artifact.size_bytes)
    config = json.loads((published / "adapter_config.json").read_text())
    assert (config["base_model_name_or_path"], config["revision"]) == (BASE, first.result.base_revision)
    assert config["target_modules"] == sorted(config["target_modules"])
    assert f"base_model: {BASE}" in (published / "README.md").read_text()

    # The operator hears of it from the first step to the last.
    assert {report.path for report in arrived} == {"/v1/progress/team-a/job"}
    assert {report.authorization for report in arrived} == {"Bearer progress-token"}
    said = [report.progress.trainer_status for report in arrived]
    assert (said[0].progress_percentage, said[-1].progress_percentage) == (0, 100)
    assert "loss" in {metric.name for metric in said[-1].metrics}

    # A second attempt of the same job finds the commit, without training.
    second = trainer.run(spec(), LORA_TRAINING_JOB_UID="uid-1")
    assert (second.exit_code, second.result) == (ExitCode.OK, first.result)
    assert second.readings == []
    assert commits_of(api, REPO, job_uid="uid-1") == [artifact.commit]
    assert "hf_write" not in first.log + second.log


def test_a_data_set_of_conversations_comes_from_the_hub_at_its_commit(trainer: Trainer, api: HfApi) -> None:
    repo = "acme/from-chat"
    source = {"source": {"hub": {"repo": CHAT}}, "format": "Messages"}
    lora = {"r": 4, "targetModules": ["q_proj", "v_proj"], "useRslora": True}
    ended = trainer.run(
        spec(
            dataset=source,
            lora=lora,
            training=spec()["training"]
            | {"assistantOnlyLoss": True, "maxGradNorm": "0.5", "extraArgs": {"adam_beta2": "0.95"}},
            output=output(repo),
        )
    )
    assert ended.exit_code == ExitCode.OK, ended.log
    assert ended.result.dataset_revision == api.dataset_info(CHAT).sha
    artifact = ended.result.artifact
    assert artifact is not None
    files = api.list_repo_files(repo, revision=artifact.commit)
    assert not {"tokenizer.json", "training_args.bin", "chat_template.jinja"} & set(files)


class Failure(NamedTuple):
    """A spec, what its environment adds, and how the attempt ends."""

    spec: dict[str, Any]
    environ: dict[str, str]
    exit_code: ExitCode
    words: str


FAILURES: Mapping[str, Failure] = {
    "a target module that the base lacks": Failure(
        spec(lora={"r": 8, "targetModules": ["q_prj"]}),
        {},
        ExitCode.CONFIG_INVALID,
        "lora.targetModules: acme/tiny has no module 'q_prj'; did you mean q_proj?",
    ),
    "an extra arg that trl does not know": Failure(
        spec(training={"maxSteps": 1, "extraArgs": {"adam_beta9": "1"}}),
        {},
        ExitCode.CONFIG_INVALID,
        "training.extraArgs.adam_beta9: trl's SFTConfig has no such argument; did you mean adam_beta2?",
    ),
    "an extra arg with a wrong value": Failure(
        spec(training={"maxSteps": 1, "extraArgs": {"logging_strategy": "sometimes"}}),
        {},
        ExitCode.CONFIG_INVALID,
        "training.extraArgs: sometimes is not a valid IntervalStrategy",
    ),
    "a rank above the engine's": Failure(
        spec(lora={"r": 64}),
        {},
        ExitCode.NOT_SERVABLE,
        "RankTooHigh",
    ),
    "an unknown base model": Failure(
        spec(baseModel={"name": "acme/nowhere"}),
        {},
        ExitCode.MODEL_UNAVAILABLE,
        "baseModel.name: acme/nowhere is not on the Hub, or the token in baseModel.tokenSecretRef may not read it",
    ),
    "an unknown revision of the base model": Failure(
        spec(baseModel={"name": BASE, "revision": "v9"}),
        {},
        ExitCode.MODEL_UNAVAILABLE,
        "baseModel.revision: acme/tiny has no revision 'v9'",
    ),
    "an unknown data set": Failure(
        spec(dataset={"source": {"hub": {"repo": "acme/nothing"}}, "format": "Text"}),
        {},
        ExitCode.DATASET_INVALID,
        "dataset.source.hub.repo: acme/nothing is not on the Hub",
    ),
    "an unknown split": Failure(
        spec(dataset={"source": {"hub": {"repo": CHAT}}, "format": "Messages", "split": "test"}),
        {},
        ExitCode.DATASET_INVALID,
        'Unknown split "test"',
    ),
    "a data set of the Hub in another format": Failure(
        spec(dataset={"source": {"hub": {"repo": CHAT}}, "format": "Text"}),
        {},
        ExitCode.DATASET_INVALID,
        "data set has no column 'text', its columns are messages",
    ),
    "a token that may not write": Failure(
        spec(),
        {"LORA_OUTPUT_TOKEN": "hf_read"},
        ExitCode.HUB_UNAUTHORIZED,
        "output.hub.repo: the token in output.hub.tokenSecretRef may not write to acme/refused",
    ),
    "a token that the Hub does not know": Failure(
        spec(),
        {"LORA_OUTPUT_TOKEN": "hf_nobodys"},
        ExitCode.HUB_UNAUTHORIZED,
        "output.hub.repo: the token in output.hub.tokenSecretRef may not write to acme/refused",
    ),
}


@pytest.mark.parametrize("failure", [pytest.param(failure, id=name) for name, failure in FAILURES.items()])
def test_what_is_wrong_ends_with_its_exit_code_and_the_field_named(
    failure: Failure, trainer: Trainer, api: HfApi, hub: hubserver.Hub
) -> None:
    before = len(hub.requests)
    wanted = failure.spec | {"output": output("acme/refused")}
    ended = trainer.run(wanted, LORA_TRAINING_JOB_UID="uid-refused", **failure.environ)
    assert ended.exit_code == failure.exit_code, ended.log
    assert failure.words in ended.result.message
    assert [one.path for one in hub.requests[before:] if one.path.endswith("/model.safetensors")] == []
    assert not exists(api, "acme/refused") or not commits_of(api, "acme/refused", job_uid="uid-refused")


@pytest.mark.parametrize("fault", [pytest.param(fault, id=name) for name, fault in DATASET_FAULTS.items()])
def test_a_fault_in_the_data_set_leaves_the_message_that_the_job_actor_replays(
    fault: DatasetFault, trainer: Trainer
) -> None:
    source = {"source": {"configMapRef": {"name": "data", "key": fault.key}}, "format": fault.format.value}
    ended = trainer.run(spec(dataset=source), data=fault.value)
    assert (ended.exit_code, ended.termination_message) == (fault.exit_code, fault.termination_message)


def test_a_hub_that_stays_at_503_ends_in_69_and_one_that_recovers_is_waited_for(
    trainer: Trainer, hub: hubserver.Hub, api: HfApi
) -> None:
    hub.fault(r"/api/models/acme/tiny", status=503, times=-1)
    ended = trainer.run(spec(), LORA_TRAIN_HUB_PATIENCE_SECONDS="2")
    assert (ended.exit_code, ended.result.reason) == (ExitCode.HUB_UNAVAILABLE, Reason.HUB_UNAVAILABLE)
    assert "baseModel acme/tiny: the Hub is not available (503" in ended.result.message

    hub.clear_faults()
    hub.fault(r"POST /api/models/acme/patient/commit/", status=503, times=3)
    ended = trainer.run(spec(output=output("acme/patient")), LORA_TRAINING_JOB_UID="uid-patient")
    assert ended.exit_code == ExitCode.OK, ended.log
    assert ended.result.artifact is not None
    assert commits_of(api, "acme/patient", job_uid="uid-patient") == [ended.result.artifact.commit]


def test_a_gated_base_is_told_as_such(trainer: Trainer, hub: hubserver.Hub) -> None:
    hub.fault(r"/acme/tiny/resolve/", status=403, times=-1, code="GatedRepo")
    ended = trainer.run(spec())
    assert ended.exit_code == ExitCode.MODEL_UNAVAILABLE
    assert "baseModel.name: acme/tiny is gated" in ended.result.message


def test_half_an_adapter_is_never_published(trainer: Trainer, api: HfApi) -> None:
    endless = spec()["training"] | {"maxSteps": 1_000_000, "loggingSteps": 1}
    process = trainer.start(
        spec(training=endless, output=output("acme/preempted")), LORA_TRAINING_JOB_UID="uid-preempted"
    )
    assert process.stdout is not None
    # A trainer that hangs before its first step is ended here, and the assertions below say so.
    deadline = threading.Timer(300, process.kill)
    deadline.start()
    seen = ""
    for line in process.stdout:
        seen += line
        if '"step":3,' in line:
            process.send_signal(signal.SIGTERM)
            break
    deadline.cancel()
    assert '"step":3,' in seen, seen
    ended = trainer.ended(process)
    assert (ended.exit_code, ended.result.reason) == (ExitCode.FAILED, Reason.PREEMPTED)
    assert commits_of(api, "acme/preempted", job_uid="uid-preempted") == []
    assert "adapter_model.safetensors" not in api.list_repo_files("acme/preempted")


def test_a_training_that_diverges_to_nan_is_not_published(trainer: Trainer, hub: hubserver.Hub, api: HfApi) -> None:
    weights = cached.ensure() / "model.safetensors"
    sound = {path.name: path.read_bytes() for path in weights.parent.iterdir()}
    hub.add_model("acme/nan", sound | {weights.name: poisoned(weights)})
    ended = trainer.run(
        spec(baseModel={"name": "acme/nan"}, output=output("acme/diverged")), LORA_TRAINING_JOB_UID="uid-nan"
    )
    assert (ended.exit_code, ended.result.reason) == (ExitCode.NOT_SERVABLE, Reason.NOT_SERVABLE), ended.log
    assert "NotFinite" in ended.result.message
    assert commits_of(api, "acme/diverged", job_uid="uid-nan") == []


def test_memory_that_runs_out_is_told_with_what_to_lower() -> None:
    # There is no accelerator here: its allocator's refusal is raised where a step would have met it.
    program = """
import torch
from lora_trainer import result, train
def accelerators(*_, **__):
    raise torch.OutOfMemoryError("Tried to allocate 20 GiB")
def pythons(*_, **__):
    raise MemoryError("no")
def cpus(*_, **__):
    torch.empty(1 << 45)
for train._run in (accelerators, pythons, cpus):
    try:
        train.run(None, base=None, dataset=None, where=None)
    except result.Refusal as refusal:
        print(int(result.EXIT_CODES[refusal.reason]), refusal)
"""
    python = engine.REPOSITORY / ".local/engine/bin/python"
    said = subprocess.run([python, "-c", program], capture_output=True, text=True, check=True, timeout=300).stdout
    told = "78 out of memory: lower training.perDeviceTrainBatchSize or training.maxLength"
    assert [line.startswith(told) for line in said.splitlines()] == [True] * 3


def poisoned(weights: Path) -> bytes:
    """Return a model whose last tensor's last value is not a number."""
    content = bytearray(weights.read_bytes())
    content[-4:] = struct.pack("<f", float("nan"))
    return bytes(content)
