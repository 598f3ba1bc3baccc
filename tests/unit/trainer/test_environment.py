"""The process has as many threads as its container has processors, and what somebody set stays."""

from __future__ import annotations

import sys
import warnings
from typing import Literal

import pytest

from lora_trainer import environment


@pytest.mark.parametrize(
    ("processors", "cpu_max", "threads"),
    [(64, "400000 100000", 4), (64, "50000 100000", 1), (2, "400000 100000", 2), (8, "max 100000", 8), (8, "", 8)],
)
def test_threads_follow_the_cgroup(processors: int, cpu_max: str, threads: int) -> None:
    assert environment.threads(processors, cpu_max) == threads


def test_what_is_set_stays() -> None:
    environ = {"OMP_NUM_THREADS": "3", "TQDM_DISABLE": "0"}
    environment.settle(environ, processors=8, cpu_max="", terminal=False)
    assert (environ["OMP_NUM_THREADS"], environ["TQDM_DISABLE"]) == ("3", "0")


def test_bars_are_off_only_where_nobody_looks() -> None:
    quiet: dict[str, str] = {}
    shown: dict[str, str] = {}
    environment.settle(quiet, processors=8, cpu_max="", terminal=False)
    environment.settle(shown, processors=8, cpu_max="", terminal=True)
    assert quiet["HF_HUB_DISABLE_PROGRESS_BARS"] == "1"
    assert "HF_HUB_DISABLE_PROGRESS_BARS" not in shown


def warned(
    message: str, kind: type[Warning], capsys: pytest.CaptureFixture[str], *, before: Literal["default", "error"]
) -> str:
    """Return what a warning in a library's file looks like on stderr; `before` is how warnings were taken so far."""
    with warnings.catch_warnings():
        warnings.simplefilter(before)
        environment.tell_warnings()
        warnings.warn_explicit(message, kind, "/env/lib/python3/site-packages/peft/tuners/lora.py", 7)
    return capsys.readouterr().err.partition(" ")[2]


def test_a_warning_is_a_line_that_names_the_library(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "warnoptions", [])
    assert (
        warned("no gradient\n  will flow", UserWarning, capsys, before="default")
        == "warning: peft: no gradient will flow\n"
    )
    assert warned("use that instead", FutureWarning, capsys, before="default") == ""
    assert warned("fan_in_fan_out is set to False but", UserWarning, capsys, before="default") == ""
    assert warned("PiSSA changes the base weights of the", UserWarning, capsys, before="default") == ""


def test_who_says_what_is_to_become_of_warnings_is_heard(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "warnoptions", ["error"])
    with pytest.raises(FutureWarning, match="use that instead"):
        warned("use that instead", FutureWarning, capsys, before="error")
