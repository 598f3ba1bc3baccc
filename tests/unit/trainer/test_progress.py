"""A reading is one line of JSON with our names, and goes along with transformers' metrics."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest

from lora_trainer import progress
from lora_trainer.progress import Pace

NOW = datetime(2026, 11, 25, 22, 0, tzinfo=UTC)
PACE = Pace(step=30, max_steps=100, first=20, seconds=5.0, tokens=1000)


def test_a_reading_has_all_that_is_known() -> None:
    logs = {"loss": 1.23456789, "learning_rate": 2e-4, "epoch": 0.3, "grad_norm": 9.0}
    assert progress.reading(logs, PACE, memory={"allocatedBytes": 1, "peakBytes": 2}, now=NOW) == {
        "type": "progress",
        "time": "2026-11-25T22:00:00+00:00",
        "step": 30,
        "maxSteps": 100,
        "loss": 1.23457,
        "learningRate": 0.0002,
        "epoch": 0.3,
        "tokensPerSecond": 200.0,
        "etaSeconds": 35,
        "memory": {"allocatedBytes": 1, "peakBytes": 2},
    }


def test_a_resumed_attempt_reckons_with_its_own_steps() -> None:
    assert PACE.remaining_seconds == 35
    assert Pace(step=20, max_steps=100, first=20, seconds=5.0, tokens=0).remaining_seconds is None


def test_an_evaluation_is_told_too() -> None:
    found = progress.reading({"eval_loss": 2.5, "eval_runtime": 1.0}, PACE, memory={}, now=NOW)
    assert found["evalLoss"] == 2.5
    assert "memory" not in found


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_loss_that_is_no_number_is_still_json(value: float, capsys: pytest.CaptureFixture[str]) -> None:
    progress.say(progress.reading({"loss": value}, PACE, memory={}, now=NOW))
    assert json.loads(capsys.readouterr().out)["loss"] == str(value)


def test_our_metrics_have_transformers_kind_of_names() -> None:
    found = progress.reading({"loss": 1.0}, PACE, memory={"peakBytes": 2}, now=NOW)
    assert progress.metrics(found) == {"tokens_per_second": 200.0, "eta_seconds": 35, "memory_peak_bytes": 2}
