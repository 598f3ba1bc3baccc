"""SIGTERM and Ctrl-C are heard from the first moment, and end in a result."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from lora_operator.protocol.training import ExitCode, Reason, read_result
from lora_trainer.preemption import SIGNALS, Preemption, Preemptions

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


@pytest.fixture
def preemptions() -> Iterator[Preemptions]:
    before = {number: signal.getsignal(number) for number in SIGNALS}
    listening = Preemptions()
    listening.listen()
    yield listening
    for number, handler in before.items():
        signal.signal(number, handler)


def test_another_ctrl_c_ends_a_step_at_once_and_a_third_does_not_disturb_the_end(
    preemptions: Preemptions, capsys: pytest.CaptureFixture[str]
) -> None:
    def presses() -> None:
        signal.raise_signal(signal.SIGINT)
        assert preemptions.requested
        try:
            signal.raise_signal(signal.SIGINT)
        finally:
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(Preemption, match="SIGINT"), preemptions.held("the step is finished", breakable=True):
        presses()
    assert capsys.readouterr().err.endswith("SIGINT: the step is finished; Ctrl-C again ends it at once\n")


@pytest.mark.parametrize(("number", "breakable"), [(signal.SIGTERM, True), (signal.SIGINT, False)])
def test_what_a_machine_sends_twice_is_waited_for(number: int, breakable: bool, preemptions: Preemptions) -> None:
    with preemptions.held("the step is finished", breakable=breakable):
        signal.raise_signal(number)
        signal.raise_signal(number)
    with pytest.raises(Preemption):
        preemptions.check()
