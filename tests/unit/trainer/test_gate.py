"""The gate lets through what is good enough, by a threshold, by the base or by the adapter before, and nothing else."""

from __future__ import annotations

import math
from typing import Any

import pytest

from lora_operator.api.training import Method
from lora_operator.api.training_run import Evaluation
from lora_operator.protocol.training import Reason
from lora_trainer import gate
from lora_trainer.result import Refusal


def evaluation(**fields: Any) -> Evaluation:
    return Evaluation.model_validate({"fraction": "0.1"} | fields)


@pytest.mark.parametrize(
    ("asked", "better", "value", "reference", "passed"),
    [
        pytest.param({"threshold": "1.9"}, "Lower", 1.9, None, True, id="at the threshold"),
        pytest.param({"threshold": "1.9"}, "Lower", 1.91, None, False, id="above the threshold"),
        pytest.param({"threshold": "0.8"}, "Higher", 0.9, None, True, id="an accuracy above its threshold"),
        pytest.param({"threshold": "0.8"}, "Higher", 0.7, None, False, id="an accuracy below its threshold"),
        pytest.param({"against": "Base"}, "Lower", 1.9, 2.0, True, id="better than the base"),
        pytest.param({"against": "Base"}, "Lower", 2.1, 2.0, False, id="worse than the base"),
        pytest.param({"against": "Base", "margin": "0.2"}, "Lower", 1.9, 2.0, False, id="better, but not by enough"),
        pytest.param({"against": "Current", "margin": "-0.2"}, "Lower", 2.1, 2.0, True, id="worse by what is allowed"),
        pytest.param({"against": "Current"}, "Lower", 9.0, None, True, id="no adapter was published before"),
        pytest.param({"against": "Current"}, "Lower", math.nan, None, False, id="no number, against nothing"),
        pytest.param({"threshold": "3", "against": "Base"}, "Lower", 2.5, 2.0, False, id="the harder limit decides"),
        pytest.param({"threshold": "1", "against": "Base"}, "Lower", 1.5, 2.0, False, id="the other harder limit"),
        pytest.param({"threshold": "9"}, "Lower", math.nan, None, False, id="a loss that is no number"),
        pytest.param({"threshold": "9", "against": "Base"}, "Lower", 1.0, math.nan, False, id="a base without a loss"),
    ],
)
def test_a_gate_judges(
    asked: dict[str, str], better: str, value: float, reference: float | None, *, passed: bool
) -> None:
    wanted = evaluation(gate=asked, better=better)
    assert wanted.gate is not None
    verdict = gate.judge(wanted, wanted.gate, value=value, reference=reference)
    assert verdict.passed is passed
    if passed:
        gate.refuse(verdict)
        return
    with pytest.raises(Refusal) as refused:
        gate.refuse(verdict)
    assert refused.value.reason is Reason.GATE_FAILED
    assert str(refused.value).startswith("evaluation.gate: eval_loss is ")


def test_a_verdict_names_what_the_limit_comes_from() -> None:
    wanted = evaluation(gate={"threshold": "3", "against": "Base", "margin": "0.1"})
    assert wanted.gate is not None
    verdict = gate.judge(wanted, wanted.gate, value=1.0, reference=2.0)
    assert (verdict.limit, verdict.against) == ("1.9", "the base model")


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"split": "test"}, "evaluation"),
        ({"fraction": None}, "evaluation"),
        ({"fraction": "1"}, "evaluation.fraction"),
        ({"fraction": "0"}, "evaluation.fraction"),
        ({"keep": "Best"}, "evaluation"),
        ({"gate": {"margin": "1"}}, "evaluation.gate"),
    ],
    ids=str,
)
def test_what_does_not_fit_together_is_told_by_its_field(fields: dict[str, Any], field: str) -> None:
    assert [name for name, _ in gate.faults(evaluation(**fields), method=Method.SFT, converted=False)] == [field]


def test_a_start_that_changes_the_base_can_not_be_measured_against_it() -> None:
    against, alone = evaluation(gate={"against": "Base"}), evaluation(gate={"threshold": "2"})
    assert [name for name, _ in gate.faults(against, method=Method.SFT, converted=True)] == ["evaluation.gate.against"]
    assert list(gate.faults(alone, method=Method.SFT, converted=True)) == []
    assert list(gate.faults(None, method=Method.SFT, converted=True)) == []


@pytest.mark.parametrize(
    ("method", "metric", "known"),
    [
        (Method.SFT, "eval_mean_token_accuracy", True),
        (Method.SFT, "eval_accuracy", False),
        (Method.SFT, "eval_rewards/accuracies", False),
        (Method.DPO, "eval_rewards/accuracies", True),
    ],
)
def test_a_metric_that_the_method_does_not_have_is_refused(method: Method, metric: str, *, known: bool) -> None:
    found = dict(gate.faults(evaluation(metric=metric), method=method, converted=False))
    assert ("evaluation.metric" not in found) is known
    if not known:
        assert found["evaluation.metric"].startswith(f"method {method.value} has no {metric}, it has eval_loss, ")
