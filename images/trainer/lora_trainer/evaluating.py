"""Evaluation on rows that were not trained on: which they are, and what the adapter, the base and the last one make of
them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from huggingface_hub import HfApi
from huggingface_hub.errors import EntryNotFoundError, RepositoryNotFoundError

from lora_operator.adapter import CONFIG, WEIGHTS
from lora_operator.api.training_run import Against, Evaluation, EvaluationSchedule, Keep
from lora_operator.protocol.training import GateVerdict, Reason
from lora_trainer import gate, hub, log
from lora_trainer.data import Data
from lora_trainer.hub import Patience
from lora_trainer.result import Refusal
from lora_trainer.spec import TrainSpec

CURRENT: Final = "current"
KEPT: Final = ("eval_loss", "eval_mean_token_accuracy")
"""Metrics that the result has; the model card has them all."""


def held_out(spec: TrainSpec, dataset: Data, load: Callable[[str], Data]) -> tuple[Data, Any]:
    """Return the rows to train on, and those to evaluate on: None where nothing is evaluated."""
    wanted = spec.evaluation
    if wanted is None:
        return dataset, None
    if wanted.split is not None:
        return dataset, load(wanted.split).dataset
    rows = len(dataset.dataset)
    back = round(rows * float(wanted.fraction or 0))
    if not 0 < back < rows:
        raise Refusal(Reason.DATASET_INVALID, f"evaluation.fraction: {wanted.fraction} of {rows} rows is {back} rows")
    parts = dataset.dataset.train_test_split(test_size=back, seed=spec.training.seed)
    log.say(f"evaluation: {back} rows are held back, {rows - back} are trained on")
    return replace(dataset, dataset=parts["train"], rows=rows - back), parts["test"]


def arguments(spec: TrainSpec) -> dict[str, Any]:
    """Return the arguments of SFTConfig that say when to evaluate, and which weights to keep."""
    wanted = spec.evaluation
    if wanted is None:
        return {}
    given: dict[str, Any] = {}
    if "per_device_eval_batch_size" not in spec.training.extra_args:
        given["per_device_eval_batch_size"] = spec.training.per_device_train_batch_size
    if wanted.schedule is EvaluationSchedule.EPOCH:
        given["eval_strategy"] = "epoch"
    if wanted.keep is Keep.BEST:
        given |= {
            "save_strategy": "epoch",
            "load_best_model_at_end": True,
            "metric_for_best_model": wanted.metric,
            "greater_is_better": wanted.better.value == "Higher",
        }
    return given


def measure(
    trainer: Any, evaluation: Evaluation, *, published: Callable[[], Path | None]
) -> tuple[dict[str, float], GateVerdict | None]:
    """Return the metrics of the adapter that was trained, and what the gate says of it."""
    metrics = _evaluate(trainer)
    if evaluation.gate is None:
        return metrics, None
    value = _of(metrics, evaluation)
    reference = None
    if evaluation.gate.against is Against.BASE:
        with trainer.model.disable_adapter():
            reference = _of(_evaluate(trainer), evaluation)
    elif evaluation.gate.against is Against.CURRENT and (folder := published()) is not None:
        reference = _of(_with_adapter(trainer, folder), evaluation)
    verdict = gate.judge(evaluation, evaluation.gate, value=value, reference=reference)
    log.say(
        f"gate: {verdict.metric} is {verdict.value}, the limit of {verdict.against} is {verdict.limit or 'none'}: "
        f"{'passed' if verdict.passed else 'not passed'}"
    )
    return metrics, verdict


def published_adapter(repo: str, *, token: str | None, patience: Patience) -> Path | None:
    """Bring the adapter that a repository holds now; None where it holds none."""
    api = HfApi(token=token)

    def fetch() -> Path | None:
        try:
            names = api.list_repo_files(repo)
            if not {CONFIG, WEIGHTS} <= set(names):
                return None
            return Path(api.snapshot_download(repo, allow_patterns=[CONFIG, WEIGHTS]))
        except (RepositoryNotFoundError, EntryNotFoundError):
            return None

    return hub.call(
        fetch,
        what=f"output.hub {repo}",
        patience=patience,
        denied=lambda denied: Refusal(
            Reason.HUB_UNAUTHORIZED, f"output.hub.repo: {repo} can't be read for evaluation.gate ({denied.words})"
        ),
    )


def _evaluate(trainer: Any) -> dict[str, float]:
    found: dict[str, float] = trainer.evaluate()
    return found


def _with_adapter(trainer: Any, folder: Path) -> dict[str, float]:
    """Evaluate another adapter on the same base."""
    model = trainer.model
    own = model.active_adapter
    try:
        model.load_adapter(str(folder), adapter_name=CURRENT, autocast_adapter_dtype=True)
    except (RuntimeError, ValueError, KeyError) as error:
        message = f"evaluation.gate: the adapter published before does not fit {model.config.model_type}: {error}"
        raise Refusal(Reason.GATE_FAILED, message.splitlines()[0]) from error
    try:
        model.set_adapter(CURRENT)
        return _evaluate(trainer)
    finally:
        model.set_adapter(own)
        model.delete_adapter(CURRENT)


def _of(metrics: dict[str, float], evaluation: Evaluation) -> float:
    if evaluation.metric not in metrics:
        known = ", ".join(sorted(name for name in metrics if name.startswith("eval_")))
        raise Refusal(Reason.CONFIG_INVALID, f"evaluation.metric: there is no {evaluation.metric}, there are {known}")
    return float(metrics[evaluation.metric])
