"""During and after a training, for real: processes that train together, gates, and publishing as a step of its own."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import re
import shlex
import signal
import socket
import termios
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import HfApi

import hubserver
from lora_operator.adapter import open_directory
from lora_operator.protocol.training import COMMIT_TRAILER, ExitCode, Reason
from support import real_trainer
from support.real_trainer import Ended, Trainer


def spec(repo: str, **parts: Any) -> dict[str, Any]:
    return real_trainer.spec(output={"hub": {"repo": repo}}, **parts)


def is_published(api: HfApi, repo: str) -> bool:
    return api.repo_exists(repo) and any(COMMIT_TRAILER in one.message for one in api.list_repo_commits(repo))


def test_two_processes_train_one_adapter_and_go_on_together_on_two_nodes(trainer: Trainer, api: HfApi) -> None:
    endless = real_trainer.spec()["training"] | {"maxSteps": 30, "loggingSteps": 1}
    # 4 steps an epoch: SIGTERM after the third comes, in both processes, at about the evaluation that ends the first.
    wanted = spec(
        "acme/two",
        parallelism={"procPerNode": 2},
        checkpoint={"intervalSeconds": 3600},
        evaluation={"fraction": "0.2", "schedule": "Epoch"},
        training=endless,
    )
    process = trainer.start(wanted, LORA_TRAINING_JOB_UID="uid-two")
    assert process.stdout is not None
    for line in process.stdout:
        if '"step":3,' in line:
            process.send_signal(signal.SIGTERM)
            break
    ended = trainer.ended(process)
    # torchrun ends with 1; its first process and the launcher know better.
    assert (ended.exit_code, ended.result.reason) == (ExitCode.PREEMPTED, Reason.PREEMPTED), ended.log
    assert not is_published(api, "acme/two")
    lines = ended.log.splitlines()
    assert [line for line in lines if not re.match(r"\d\d:\d\d:\d\d ", line)] == [], "torch or its launcher talks"

    # As Kubeflow and JobSet say where the others are.
    nodes = wanted | {"parallelism": {"nodes": 2}}
    where = {"PET_NNODES": "2", "PET_MASTER_ADDR": "127.0.0.1", "PET_MASTER_PORT": str(free_port())}
    second = trainer.start(nodes, options=SILENT, LORA_TRAINING_JOB_UID="uid-two", PET_NODE_RANK="1", **where)
    again = trainer.run(nodes, LORA_TRAINING_JOB_UID="uid-two", PET_NODE_RANK="0", **where)
    out, log = second.communicate(timeout=300)
    assert second.returncode == ExitCode.OK, out + log
    assert again.exit_code == ExitCode.OK, again.log
    assert (again.result.world_size, again.result.steps) == (2, 30)
    assert again.result.resumed_from_step == ended.result.checkpoint_step
    assert len([one for one in again.readings if one["step"] == 30 and "loss" in one]) == 1, "one speaks for both"
    step = ended.result.checkpoint_step or 0
    evaluated = [one["step"] for one in again.readings if "evalLoss" in one]
    due = [end for end in (4, 8, 12, 16, 20, 24, 28, 30) if end > step] + [30]
    assert evaluated in (due, [step, *due]), "an epoch was passed over"
    assert again.result.artifact is not None
    assert again.result.artifact.servable


SILENT = ("--termination-message", "/nowhere")


def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        return int(bound.getsockname()[1])


def test_one_process_alone_is_refused_where_two_were_asked_for(trainer: Trainer, api: HfApi) -> None:
    ended = trainer.run(spec("acme/alone", parallelism={"procPerNode": 2}), WORLD_SIZE="1", RANK="0")
    assert ended.exit_code == ExitCode.CONFIG_INVALID
    assert "2 processes are asked for, but the launcher started 1" in ended.result.message


def test_a_hub_that_stays_away_costs_no_training_and_the_way_on_is_told(
    trainer: Trainer, hub: hubserver.Hub, api: HfApi, tmp_path: Path
) -> None:
    repo = "acme/away"
    hub.fault(rf"POST /api/models/{repo}/commit/", status=503, times=-1)
    ended = trainer.run(spec(repo), LORA_TRAINING_JOB_UID="uid-away", LORA_TRAIN_HUB_PATIENCE_SECONDS="2")
    assert (ended.exit_code, ended.result.reason) == (ExitCode.HUB_UNAVAILABLE, Reason.HUB_UNAVAILABLE), ended.log
    command = shlex.join(
        ["lora-train", "--spec", f"{tmp_path}/spec.json", "--output", f"{tmp_path}/output", "--publish-only"]
    )
    assert command in ended.result.message
    assert command in ended.log
    assert not is_published(api, repo)

    hub.clear_faults()
    again = trainer.run(spec(repo), options=["--publish-only"], LORA_TRAINING_JOB_UID="uid-away")
    assert (again.exit_code, again.result.reason) == (ExitCode.OK, Reason.PUBLISHED), again.log
    assert again.readings == []
    artifact = again.result.artifact
    assert artifact is not None
    folder = api.snapshot_download(repo, revision=artifact.commit, local_dir=tmp_path / "published")
    assert open_directory(folder).digest == artifact.digest
    card = (tmp_path / "published" / "README.md").read_text()
    assert "![loss by optimiser step](loss.svg)" in card
    assert "fingerprint of the rows" in card
    assert (tmp_path / "published" / "loss.svg").read_text().startswith("<svg")
    assert "hf_write" not in ended.log + again.log


def test_a_gate_measures_against_threshold_base_and_the_adapter_before(trainer: Trainer, api: HfApi) -> None:
    def gated(**gate: str) -> Ended:
        evaluation = {"fraction": "0.2", "gate": gate}
        return trainer.run(spec("acme/gated", evaluation=evaluation), LORA_TRAINING_JOB_UID=f"uid-{gate}")

    refused = gated(threshold="0.001")
    assert (refused.exit_code, refused.result.reason) == (ExitCode.GATE_FAILED, Reason.GATE_FAILED), refused.log
    assert "evaluation.gate: eval_loss is " in refused.result.message
    assert not is_published(api, "acme/gated")

    better = gated(against="Base")
    assert better.exit_code == ExitCode.OK, better.log
    verdict = better.result.gate
    assert verdict is not None
    assert float(verdict.value) < float(verdict.limit)
    assert "eval_loss" in better.result.metrics

    # The same recipe makes the same adapter: not better than itself by anything.
    same = gated(against="Current", margin="0.01")
    assert (same.exit_code, same.result.reason) == (ExitCode.GATE_FAILED, Reason.GATE_FAILED), same.log
    assert "the adapter published before" in same.result.message


WRITER = """
import json, pathlib
class SummaryWriter:
    def __init__(self, log_dir):
        self.path = pathlib.Path(log_dir) / "scalars"
        self.path.parent.mkdir(exist_ok=True)
    def add_scalar(self, name, value, step):
        with self.path.open("a") as file:
            file.write(json.dumps([name, value, step]) + chr(10))
    def add_text(self, *_): pass
    def flush(self): pass
    def close(self): pass
"""
"""A TensorBoard that writes lines: transformers' own callback finds it where tensorboardX would be."""


def test_the_best_epoch_is_kept_and_readings_are_told_to_a_tracker_too(trainer: Trainer) -> None:
    epochs = {"numTrainEpochs": 3, "perDeviceTrainBatchSize": 8, "learningRate": "1e-2", "maxLength": 64}
    wanted = spec(
        "acme/best",
        training=epochs | {"loggingSteps": 1, "extraArgs": {"report_to": "tensorboard"}},
        evaluation={"fraction": "0.2", "schedule": "Epoch", "keep": "Best"},
        checkpoint={"intervalSeconds": 3600, "retention": "Retain"},
    )
    library, board = trainer.folder / "library", trainer.folder / "board"
    library.mkdir()
    (library / "tensorboardX.py").write_text(WRITER)
    ended = trainer.run(wanted, PYTHONPATH=str(library), TENSORBOARD_LOGGING_DIR=str(board))
    assert ended.exit_code == ExitCode.OK, ended.log
    tracked = [json.loads(line) for line in (board / "scalars").read_text().splitlines()]
    losses = {step: value for name, value, step in tracked if name == "train/loss"}
    assert losses == {one["step"]: pytest.approx(one["loss"], rel=1e-5) for one in ended.readings if "loss" in one}
    measured = [one["evalLoss"] for one in ended.readings if "evalLoss" in one]
    assert float(ended.result.metrics["eval_loss"]) == pytest.approx(min(measured), abs=1e-4)
    first = ended.readings[0]
    assert {"step", "maxSteps", "epoch", "loss", "learningRate", "etaSeconds", "memory"} <= set(first)
    assert any(one.get("tokensPerSecond", 0) > 0 for one in ended.readings)


def test_on_a_terminal_a_bar_shows_the_loss_in_place_of_lines(trainer: Trainer) -> None:
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (24, 120))
    trainer.stderr = theirs
    process = trainer.start(spec("acme/watched"))
    os.close(theirs)
    shown = drawn(ours)
    out, _ = process.communicate(timeout=300)
    assert process.returncode == ExitCode.OK, shown
    assert "20/20 [" in shown
    assert re.search(r"loss=[0-9.]+, learningRate=", shown), shown
    [last] = out.splitlines()
    assert json.loads(last)["reason"] == "Published"


def drawn(terminal: int) -> str:
    """Return what a terminal was sent, until nobody has its other end."""
    said = b""
    with contextlib.suppress(OSError):  # how Linux says so
        while block := os.read(terminal, 1 << 16):
            said += block
    os.close(terminal)
    return said.decode(errors="replace")
