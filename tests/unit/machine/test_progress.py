"""What a person sees of a long step, and of a lock that somebody else holds."""

from contextlib import ExitStack
from pathlib import Path
from threading import Thread

import pytest

from machine import lock, progress


def test_a_log_has_a_line_before_a_step_and_one_after_it(capsys: pytest.CaptureFixture[str]) -> None:
    with progress.step("making it", estimate="5 s"):
        before = capsys.readouterr().err
    assert before == "  making it (about 5 s) ...\n"
    assert capsys.readouterr().err.startswith("  done making it (0.")


def test_a_step_that_fails_is_not_called_done(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ValueError, match="no"), progress.step("making it"):
        raise ValueError("no")
    assert capsys.readouterr().err == "  making it ...\n"


def test_who_waits_for_a_lock_says_so_and_has_it_next(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []
    first = ExitStack()

    def hears(line: str, **_: object) -> None:
        told.append(line)
        first.close()

    def waits() -> None:
        with lock.held(tmp_path / "lock"):
            told.append("had it")

    monkeypatch.setattr(progress.console, "print", hears)
    first.enter_context(lock.held(tmp_path / "lock"))
    second = Thread(target=waits, daemon=True)
    second.start()
    second.join(timeout=60)
    assert told == [f"waiting for another process, which holds {tmp_path / 'lock'}", "had it"]
