"""Starts the processes of a training by torchrun, and ends as the first of them did.

torchrun itself ends with 1 whatever its workers ended with; and a pod's SIGTERM reaches this process alone.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import FrameType

from lora_operator.api.training_run import Checkpoint
from lora_operator.protocol.training import Reason, Result, read_result
from lora_trainer import log
from lora_trainer.preemption import SIGNALS
from lora_trainer.result import failed


def run(processes: int, arguments: Sequence[str], *, checkpoint: Checkpoint | None) -> Result:
    """Run lora-train with these arguments in so many processes, and return the result of the first."""
    with tempfile.TemporaryDirectory() as folder:
        message = Path(folder) / "result"
        message.touch()
        environ = shared(os.environ, processes)
        words = command(processes, [*arguments, "--termination-message", str(message)], environ=environ)
        if checkpoint is not None:
            words[3:3] = ["--shutdown-timeout", str(checkpoint.grace_period_seconds)]
        log.say(f"starting {processes} processes")
        # In a session of its own: a terminal's Ctrl-C would reach it, and each process, beside what is sent below.
        child = subprocess.Popen(words, env=environ, start_new_session=True)

        asked: list[int] = []

        def forward(number: int, _frame: FrameType | None) -> None:
            if not asked:  # torchrun leaves its workers alone at a second one: they would go on, and nobody wait
                child.terminate()
            asked.append(number)

        for number in SIGNALS:
            signal.signal(number, forward)
        code = child.wait()
        return told(message.read_text(encoding="utf-8"), code=code, asked=bool(asked))


def command(processes: int, arguments: Sequence[str], *, environ: Mapping[str, str]) -> list[str]:
    """Return the command line. With PET_NNODES torchrun finds the other nodes by its own variables."""
    alone = [] if "PET_NNODES" in environ else ["--standalone"]
    torchrun = [sys.executable, "-m", "lora_trainer.torchrun", *alone, "--nproc-per-node", str(processes)]
    return [*torchrun, "-m", "lora_trainer", *arguments]


def shared(environ: Mapping[str, str], processes: int) -> dict[str, str]:
    """Return the environment of each process: its share of the threads."""
    threads = environ.get("OMP_NUM_THREADS", "")
    share = max(1, int(threads) // processes) if threads.isdigit() else 1
    return {**environ, "OMP_NUM_THREADS": str(share)}


def told(message: str, *, code: int, asked: bool) -> Result:
    """Return what the first process left; on another node than its own, whether all went well.

    Where another process fails, torchrun sends the first one the SIGTERM that only `asked` for makes a preemption.
    """
    result = read_result(message)
    if result is not None and result.reason is Reason.PREEMPTED and not asked:
        why = "another process than the first failed: see the log"
        return failed(Reason.TRAINING_FAILED, why, checkpoint_step=result.checkpoint_step)
    if result is not None:
        return result
    if code == 0:
        return Result(reason=Reason.TRAINED, message="the first process, on another node, has the result")
    return failed(Reason.TRAINING_FAILED, f"torchrun ended with {code}, and no process left a result: see the log")
