"""The gate between training and publishing: whether a metric is good enough. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from lora_operator.api.training import Method
from lora_operator.api.training_run import Against, Better, Evaluation, EvaluationSchedule, Gate, Keep
from lora_operator.protocol.training import GateVerdict, Reason
from lora_trainer.result import Refusal

WORDS = {Against.BASE: "the base model", Against.CURRENT: "the adapter published before"}


METRICS: Final[Mapping[Method, Sequence[str]]] = {
    Method.SFT: ("loss", "mean_token_accuracy", "entropy", "num_tokens", "aux_loss"),
    Method.DPO: (
        *("loss", "mean_token_accuracy", "entropy", "num_tokens", "aux_loss"),
        *("rewards/chosen", "rewards/rejected", "rewards/accuracies", "rewards/margins"),
        *("logps/chosen", "logps/rejected", "logits/chosen", "logits/rejected"),
    ),
}
"""What trl measures by each method, without `eval_`; aux_loss only of a mixture of experts."""


UPWARDS: Final = ("mean_token_accuracy", "rewards/accuracies", "rewards/margins", "rewards/chosen")


def faults(evaluation: Evaluation | None, *, method: Method, converted: bool) -> Iterator[tuple[str, str]]:
    """Yield the fields that are wrong, and why: what the apiserver checks by CEL rules, and the decimals' ranges.

    `converted` tells that the adapter's start changes the base.
    """
    if evaluation is None:
        return
    if (evaluation.split is None) == (evaluation.fraction is None):
        yield "evaluation", "exactly one of split and fraction must be given"
    if evaluation.fraction is not None and not 0 < float(evaluation.fraction) < 1:
        yield "evaluation.fraction", "must be above 0 and below 1"
    if evaluation.keep is Keep.BEST and evaluation.schedule is not EvaluationSchedule.EPOCH:
        yield "evaluation", "keep: Best needs schedule: Epoch"
    known = [f"eval_{name}" for name in METRICS[method]]
    if evaluation.metric not in known:
        yield "evaluation.metric", f"method {method.value} has no {evaluation.metric}, it has {', '.join(known)}"
    gate = evaluation.gate
    if gate is not None and gate.threshold is None and gate.against is None:
        yield "evaluation.gate", "a gate needs threshold, against, or both"
    if gate is not None and gate.against is not None and converted:
        yield (
            "evaluation.gate.against",
            "can't be measured with lora.initLoraWeights Pissa and Olora: they change the base",
        )


def warnings(evaluation: Evaluation) -> Iterator[tuple[str, str]]:
    """Yield what is likely not meant: a metric that gets better upwards, taken for one that gets better downwards."""
    name = evaluation.metric.removeprefix("eval_")
    upwards = name in UPWARDS
    decides = evaluation.gate is not None or evaluation.keep is Keep.BEST
    if decides and upwards != (evaluation.better is Better.HIGHER) and (upwards or name == "loss"):
        wanted = Better.HIGHER if upwards else Better.LOWER
        yield "evaluation.better", f"is {evaluation.better.value}, and {evaluation.metric} is better {wanted.value}"


def judge(evaluation: Evaluation, gate: Gate, *, value: float, reference: float | None) -> GateVerdict:
    """Return what the gate says: `reference` is the metric of what the adapter is measured against, if there is one."""
    limits = []
    if gate.threshold is not None:
        limits.append((float(gate.threshold), "a threshold"))
    if gate.against is not None and reference is not None:
        margin = float(gate.margin)
        limit = reference - margin if evaluation.better is Better.LOWER else reference + margin
        limits.append((limit, WORDS[gate.against]))
    if not limits:
        nothing = "nothing: no adapter was published before"
        passed = math.isfinite(value)
        return GateVerdict(passed=passed, metric=evaluation.metric, value=_text(value), limit="", against=nothing)
    # The hardest one decides; a limit that is no number lets nothing pass.
    lower = evaluation.better is Better.LOWER
    limit, against = min(limits) if lower else max(limits)
    if any(math.isnan(one) for one, _ in limits):
        limit = math.nan
    passed = value <= limit if lower else value >= limit
    return GateVerdict(passed=passed, metric=evaluation.metric, value=_text(value), limit=_text(limit), against=against)


def refuse(verdict: GateVerdict) -> None:
    """Raise the Refusal of an adapter that does not pass."""
    if not verdict.passed:
        raise Refusal(
            Reason.GATE_FAILED,
            f"evaluation.gate: {verdict.metric} is {verdict.value}, and the limit of {verdict.against} is "
            f"{verdict.limit or 'a number'}; nothing was published",
        )


def _text(value: float) -> str:
    return f"{value:.6g}"
