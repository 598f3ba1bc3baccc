"""Every end leaves one Result, within what kubelet keeps, where program and person find it."""

from __future__ import annotations

from pathlib import Path

import pytest

from lora_operator.protocol.training import TERMINATION_MESSAGE_LIMIT, ExitCode, Reason, Result, read_result
from lora_trainer import command as program
from lora_trainer import result, spec
from lora_trainer.preemption import Preemptions


def test_every_reason_has_an_exit_code() -> None:
    assert set(result.EXIT_CODES) == set(Reason)


def test_the_result_is_the_termination_message_and_the_last_line_of_stdout(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    message = tmp_path / "termination-log"
    message.touch()
    code = result.leave(result.failed(Reason.DATASET_INVALID, "row 3"), path=message)
    assert code is ExitCode.DATASET_INVALID
    assert read_result(message.read_text()) == Result(reason=Reason.DATASET_INVALID, message="row 3")
    assert capsys.readouterr().out.splitlines()[-1] == message.read_text()


def test_a_termination_message_that_nobody_reads_is_not_made(tmp_path: Path) -> None:
    result.leave(result.failed(Reason.PREEMPTED, "SIGTERM"), path=tmp_path / "termination-log")
    assert not (tmp_path / "termination-log").exists()


@pytest.mark.parametrize("character", ["x", "☂", "𝄞", "\n"])
def test_a_termination_message_fits_whatever_it_says(character: str) -> None:
    long = Result(
        reason=Reason.TRAINING_FAILED,
        message=character * 1024,
        metrics={f"metric {number}": "1" for number in range(500)},
    )
    text = result.termination_message(long)
    assert len(text.encode()) <= TERMINATION_MESSAGE_LIMIT
    read = read_result(text)
    assert read is not None
    assert read.message.startswith(character * 500)


def test_a_long_message_is_cut() -> None:
    assert len(result.failed(Reason.CONFIG_INVALID, "x" * 5000).message) == 1024


def test_a_bad_spec_ends_with_64(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "spec.yaml").write_text("baseModel: {name: acme/tiny}")
    arguments = ["--spec", str(tmp_path / "spec.yaml"), "--termination-message", str(tmp_path / "none")]
    code = program.main(arguments, Preemptions())
    assert code == ExitCode.CONFIG_INVALID
    found = read_result(capsys.readouterr().out.splitlines()[-1])
    assert found is not None
    assert found.message == "dataset: this field is needed"


def test_whatever_goes_wrong_leaves_a_result(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(_: Path) -> None:
        raise RuntimeError("nobody thought of this")

    monkeypatch.setattr(spec, "read", broken)
    assert program.main(["--termination-message", str(tmp_path / "none")], Preemptions()) == ExitCode.FAILED
    captured = capsys.readouterr()
    found = read_result(captured.out.splitlines()[-1])
    assert found is not None
    assert (found.reason, found.message.split(";")[0]) == (
        Reason.TRAINING_FAILED,
        "RuntimeError: nobody thought of this",
    )
    assert "Traceback" in captured.err
