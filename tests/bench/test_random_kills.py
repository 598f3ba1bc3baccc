"""Ten kills at random moments of one training, run again each time: the adapter is that of a training let be."""

from __future__ import annotations

import contextlib
import os
import random
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

import hubserver
from lora_operator.protocol.training import ExitCode
from support import real_trainer
from support.real_trainer import Trainer

KILLS: Final = 10
STEPS: Final = 200


@pytest.fixture
def hub() -> Iterator[hubserver.Hub]:
    with real_trainer.stocked_hub() as hub:
        yield hub


@pytest.mark.timeout(1200)
def test_a_training_that_is_killed_ten_times_ends_as_one_that_was_let_be(hub: hubserver.Hub, tmp_path: Path) -> None:
    seed = int(os.environ.get("KILLS_SEED") or random.randrange(1 << 32))  # noqa: S311 - chooses moments, keeps no secret
    print(f"KILLS_SEED={seed}")
    moments = random.Random(seed)  # noqa: S311
    wanted = real_trainer.spec(
        lora={"r": 8, "loraAlpha": 16, "loraDropout": "0.1"},
        training=real_trainer.spec()["training"] | {"maxSteps": STEPS, "loggingSteps": 1},
        checkpoint={"intervalSeconds": 1},
    )
    (tmp_path / "let-be").mkdir()
    whole = Trainer(folder=tmp_path / "let-be", hub=hub).run(
        wanted | {"output": {"hub": {"repo": "acme/let-be"}}}, LORA_TRAINING_JOB_UID="uid-let-be"
    )
    assert whole.exit_code == ExitCode.OK, whole.log
    seconds = float(whole.result.metrics["train_runtime"])

    (tmp_path / "killed").mkdir()
    trainer = Trainer(folder=tmp_path / "killed", hub=hub)
    for _ in range(KILLS):
        process = trainer.start(wanted, LORA_TRAINING_JOB_UID="uid-killed")
        assert process.stdout is not None
        process.stdout.readline()  # the first reading, or the result of a training that was over
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=moments.uniform(0, seconds / 2))
        process.kill()
        process.communicate()
    last = trainer.run(wanted, LORA_TRAINING_JOB_UID="uid-killed")
    assert last.exit_code == ExitCode.OK, last.log
    assert last.result.artifact is not None
    assert whole.result.artifact is not None
    assert last.result.artifact.digest == whole.result.artifact.digest
