"""SIGTERM and Ctrl-C are heard from the first moment, and end in a result."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from lora_operator.protocol.training import ExitCode, Reason, read_result

STARTING = """
import os, signal, sys
from importlib.abc import MetaPathFinder

class Interrupts(MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name == {module!r}:
            try:
                os.kill(os.getpid(), signal.{name})
            except BaseException:
                {then}

sys.meta_path.insert(0, Interrupts())
from lora_trainer.__main__ import main
sys.exit(main())
"""
LEFT = "raise"
LOST = "raise ImportError('cannot load module more than once per process')"


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT"])
@pytest.mark.parametrize(
    ("module", "then", "more"),
    [
        pytest.param("lora_trainer.command", LEFT, [], id="while it starts"),
        pytest.param("lora_trainer.attempt", LEFT, [], id="while the libraries are imported"),
        pytest.param("lora_trainer.attempt", LOST, [], id="and an import makes an error of its own of it"),
        pytest.param("lora_trainer.command", LEFT, ["--check"], id="in a check"),
    ],
)
def test_a_signal_while_starting_leaves_a_result(
    name: str, module: str, then: str, more: list[str], tmp_path: Path
) -> None:
    told = tmp_path / "message"
    told.touch()
    raw = {"baseModel": {"name": "a/b"}, "dataset": {"source": {"path": "x"}, "format": "Text"}}
    (tmp_path / "spec.json").write_text(json.dumps(raw))
    program = STARTING.format(module=module, name=name, then=then)
    arguments = [str(tmp_path / "spec.json"), "--output", str(tmp_path), "--termination-message", str(told), *more]
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments], capture_output=True, text=True, check=False, env=os.environ
    )
    result = read_result(done.stdout.splitlines()[-1])
    assert result is not None, done.stderr
    assert (done.returncode, result.reason) == (ExitCode.FAILED, Reason.PREEMPTED), done.stderr
    assert result.message == f"{name}; nothing was published"
    assert read_result(told.read_text()) == result
    assert "Traceback" not in done.stderr
