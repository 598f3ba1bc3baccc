"""A training that is interrupted at a chosen moment, and run again: the same adapter to the bit, published once, whole.

The process is ended from inside, where it stands at that moment. What comes after runs as it always does.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pytest
from huggingface_hub import HfApi

import hubserver
from lora_operator.adapter import open_directory
from lora_operator.protocol.training import COMMIT_TRAILER, ExitCode, Reason, Result
from support import real_trainer
from support.grounds import Ground
from support.operating import eventually
from support.real_trainer import Trainer

STEPS: Final = 12


def wanted(repo: str) -> dict[str, Any]:
    """Return a spec with dropout, whose random numbers a resumed training must have again, and two evaluations.

    32 rows are trained on, 8 steps an epoch; 8 are held back, and evaluated one at a time.
    """
    extra = {"per_device_eval_batch_size": 1}
    return real_trainer.spec(
        lora={"r": 8, "loraAlpha": 16, "loraDropout": "0.1"},
        training=real_trainer.spec()["training"] | {"maxSteps": STEPS, "loggingSteps": 3, "extraArgs": extra},
        checkpoint={"intervalSeconds": 3600},
        evaluation={"fraction": "0.2", "schedule": "Epoch", "keep": "Best", "gate": {"threshold": "20"}},
        output={"hub": {"repo": repo}},
    )


SAVE_EACH: Final = """
from lora_trainer import keeping
from dataclasses import replace
keeper = keeping.keeper
keeping.keeper = lambda plan, *rest, **named: keeper(replace(plan, interval_seconds=0), *rest, **named)
"""
"""A checkpoint after every step."""


def at(module: str, function: str, number: signal.Signals, *, call: int = 1) -> str:
    """Return a program that ends its own process before the given call of a function."""
    return f"""
import os
from lora_trainer import {module} as place
original, calls = place.{function}, []
def ending(*rest, **named):
    calls.append(1)
    if len(calls) == {call}:
        os.kill(os.getpid(), {int(number)})
    return original(*rest, **named)
place.{function} = ending
"""


@dataclass(frozen=True, kw_only=True)
class Moment:
    """When it is ended, how it ends then, the step that the next attempt goes on from, and what that one evaluates."""

    program: str
    exit_code: int
    resumed_from: int | None
    evaluates: tuple[int, ...] = (8, STEPS, STEPS)
    """Steps: each epoch's end, and the end of it all."""


KILL, TERM = signal.SIGKILL, signal.SIGTERM
MOMENTS: Final = {
    "SIGTERM before the first checkpoint": Moment(
        program=at("keeping", "agreed", TERM, call=2), exit_code=ExitCode.PREEMPTED, resumed_from=3
    ),
    "kill -9 before the first checkpoint": Moment(
        program=at("keeping", "agreed", KILL, call=2), exit_code=-KILL, resumed_from=None
    ),
    "SIGTERM while a checkpoint is written": Moment(
        program=SAVE_EACH + at("checkpoints", "seal", TERM, call=5), exit_code=ExitCode.PREEMPTED, resumed_from=6
    ),
    "kill -9 while a checkpoint is written": Moment(
        program=SAVE_EACH + at("checkpoints", "seal", KILL, call=5), exit_code=-KILL, resumed_from=4
    ),
    "SIGTERM while an epoch is evaluated": Moment(
        program=at("keeping", "agreed", TERM, call=8 + 2), exit_code=ExitCode.PREEMPTED, resumed_from=8
    ),
    "SIGTERM while the last epoch is evaluated": Moment(
        program=at("keeping", "agreed", TERM, call=8 + 8 + 4 + 2),
        exit_code=ExitCode.PREEMPTED,
        resumed_from=STEPS,
        evaluates=(STEPS, STEPS),
    ),
    "SIGTERM after the last step": Moment(
        program=at("building", "save", TERM), exit_code=ExitCode.PREEMPTED, resumed_from=STEPS, evaluates=(STEPS,)
    ),
    "kill -9 after the last step": Moment(
        program=at("building", "save", KILL), exit_code=-KILL, resumed_from=STEPS, evaluates=(STEPS,)
    ),
}


@pytest.fixture(scope="module")
def hub() -> Iterator[hubserver.Hub]:
    with real_trainer.stocked_hub() as hub:
        yield hub


@pytest.fixture(scope="module")
def uninterrupted(hub: hubserver.Hub, tmp_path_factory: pytest.TempPathFactory) -> Result:
    """Return the result of the same training, left alone."""
    trainer = Trainer(folder=tmp_path_factory.mktemp("uninterrupted"), hub=hub)
    ended = trainer.run(wanted("acme/uninterrupted"), LORA_TRAINING_JOB_UID="uid-uninterrupted")
    assert ended.exit_code == ExitCode.OK, ended.log
    return ended.result


@pytest.fixture
def trainer(hub: hubserver.Hub, tmp_path: Path) -> Iterator[Trainer]:
    yield Trainer(folder=tmp_path, hub=hub)
    hub.clear_faults()


@pytest.mark.parametrize("name", list(MOMENTS))
def test_an_interrupted_training_ends_in_the_same_adapter(
    name: str, trainer: Trainer, hub: hubserver.Hub, uninterrupted: Result
) -> None:
    moment, repo = MOMENTS[name], f"acme/moment-{list(MOMENTS).index(name)}"
    process = trainer.start(wanted(repo), before=moment.program, LORA_TRAINING_JOB_UID=f"uid-{repo}")
    out, log = process.communicate(timeout=300)
    assert process.returncode == moment.exit_code, out + log
    assert published(hub, repo) == []
    assert [record for record in hub.requests if f"/{repo}/commit/" in record.path] == []

    again = trainer.run(wanted(repo), LORA_TRAINING_JOB_UID=f"uid-{repo}")
    assert (again.exit_code, again.result.reason) == (ExitCode.OK, Reason.PUBLISHED), again.log
    assert again.result.resumed_from_step == moment.resumed_from
    assert tuple(one["step"] for one in again.readings if "evalLoss" in one) == moment.evaluates
    same_adapter(again.result, uninterrupted, hub, repo, trainer.folder / "published")


def test_other_kinds_of_training_go_on_where_they_were_ended_too(tmp_path: Path) -> None:
    let_be, ended = Ground(folder=tmp_path), Ground(folder=tmp_path / "ended")
    ended.folder.mkdir()
    kinds = {
        "pissa": let_be.spec(lora={"initLoraWeights": "Pissa"}, checkpoint={}),
        "pissa by a fast SVD": let_be.spec(lora={"initLoraWeights": "PissaNiter16"}, checkpoint={}),
        "dpo": let_be.spec("Preference", checkpoint={}),
        "4 bits": let_be.spec(quantization={}, checkpoint={}),
    }
    whole = let_be.train(kinds)
    preempted = ended.train(kinds, script="preempted_runs.py")
    again = ended.train(kinds)
    for name in kinds:
        step = preempted[name].result.checkpoint_step
        assert preempted[name].exit_code == ExitCode.PREEMPTED, preempted[name].log
        assert again[name].exit_code == ExitCode.OK, again[name].log
        assert again[name].result.resumed_from_step == step
        assert 0 < (step or 0) < (again[name].result.steps or 0)
        assert open_directory(again[name].adapter).digest == open_directory(whole[name].adapter).digest, name


def test_what_is_killed_in_the_upload_is_published_without_training_again(
    trainer: Trainer, hub: hubserver.Hub, uninterrupted: Result
) -> None:
    repo = "acme/upload-killed"
    # Not at the weights themselves: this Hub has them from another repository, and takes no second copy.
    upload = f"/{repo}.git/info/lfs/objects/batch"
    hub.fault(f"POST {upload}", delay_seconds=600)
    process = trainer.start(wanted(repo), LORA_TRAINING_JOB_UID=f"uid-{repo}")
    eventually(lambda: [one for one in hub.requests if one.path == upload], "the upload of the weights")
    process.kill()
    process.communicate(timeout=60)
    hub.clear_faults()
    published_by_the_next(trainer, hub, repo, uninterrupted)


def test_sigterm_while_the_hub_is_waited_for_keeps_what_is_trained(
    trainer: Trainer, hub: hubserver.Hub, uninterrupted: Result
) -> None:
    repo = "acme/upload-ended"
    hub.fault(rf"POST /api/models/{repo}/commit/", status=503, times=-1)
    process = trainer.start(
        wanted(repo), before=at("preemption", "Preemptions.sleep", TERM), LORA_TRAINING_JOB_UID=f"uid-{repo}"
    )
    ended = trainer.ended(process)
    assert (ended.exit_code, ended.result.checkpoint_step) == (ExitCode.PREEMPTED, STEPS), ended.log
    hub.clear_faults()
    published_by_the_next(trainer, hub, repo, uninterrupted)


def test_a_commit_whose_answer_is_lost_is_found_and_gets_its_tag(
    trainer: Trainer, hub: hubserver.Hub, uninterrupted: Result
) -> None:
    repo = "acme/upload-untagged"
    process = trainer.start(
        wanted(repo), before=at("publish", "_with_commit", KILL), LORA_TRAINING_JOB_UID=f"uid-{repo}"
    )
    process.communicate(timeout=300)
    assert process.returncode == -KILL
    assert len(published(hub, repo)) == 1
    published_by_the_next(trainer, hub, repo, uninterrupted)


def published_by_the_next(trainer: Trainer, hub: hubserver.Hub, repo: str, uninterrupted: Result) -> None:
    """Check that another attempt publishes, and trains nothing."""
    again = trainer.run(wanted(repo), LORA_TRAINING_JOB_UID=f"uid-{repo}")
    assert again.exit_code == ExitCode.OK, again.log
    assert again.readings == []
    same_adapter(again.result, uninterrupted, hub, repo, trainer.folder / "published")


def same_adapter(result: Result, uninterrupted: Result, hub: hubserver.Hub, repo: str, folder: Path) -> None:
    """Check that one commit, tagged, holds the adapter of the uninterrupted training to the bit."""
    assert result.artifact is not None
    assert uninterrupted.artifact is not None
    assert result.artifact.digest == uninterrupted.artifact.digest
    assert published(hub, repo) == [result.artifact.commit]
    api = HfApi(endpoint=hub.url, token="hf_write")
    [tag] = api.list_repo_refs(repo).tags
    assert (tag.name, tag.target_commit) == (result.artifact.tag, result.artifact.commit)
    api.snapshot_download(repo, revision=result.artifact.commit, local_dir=folder)
    assert open_directory(folder).digest == uninterrupted.artifact.digest


def published(hub: hubserver.Hub, repo: str) -> list[str]:
    """Return the commits that a job has published."""
    api = HfApi(endpoint=hub.url, token="hf_write")
    if not api.repo_exists(repo):
        return []
    return [commit.commit_id for commit in api.list_repo_commits(repo) if COMMIT_TRAILER in commit.message]
