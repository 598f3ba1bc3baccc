"""What the apiserver checks by CEL rules, and the ranges of decimals, for a spec that no apiserver has seen. Pure."""

from __future__ import annotations

import math
import string
from collections.abc import Iterator

from lora_operator.adapter import DEVICES, DTYPES
from lora_operator.api.dataset import DatasetFormat, RowTemplate
from lora_operator.api.lora import CONVERTED, InitLoraWeights
from lora_operator.api.served_lora import ALL_LINEAR
from lora_operator.api.training import Method
from lora_operator.api.training_run import Against
from lora_trainer import gate
from lora_trainer.by_hand import Engine, TrainLora, TrainSpec
from lora_trainer.rows import COLUMNS, OPTIONAL_COLUMNS

Fault = tuple[str, str]
"""A field, and what is wrong with it."""


def faults(spec: TrainSpec) -> Iterator[Fault]:
    """Yield what is wrong, in the order of the spec's fields."""
    if spec.base_model.path is not None and spec.base_model.revision != "main":
        yield "baseModel.revision", "belongs to a base of the Hub: a folder has no revisions"
    yield from _dataset(spec)
    yield from _method(spec)
    yield from _lora(spec.lora)
    yield from _quantised(spec)
    yield from _training(spec)
    yield from gate.faults(spec.evaluation, method=spec.method, converted=spec.lora.init_lora_weights in CONVERTED)
    yield from _checkpoint(spec)
    yield from _engine(spec.engine)
    if spec.evaluation is not None and spec.evaluation.gate is not None:
        against = spec.evaluation.gate.against
        if against is Against.CURRENT and spec.output.hub is None:
            yield "evaluation.gate.against", "Current is what output.hub.repo holds, and there is no output.hub"


def warnings(spec: TrainSpec) -> Iterator[Fault]:
    """Yield what is likely not meant."""
    training, evaluation = spec.training, spec.evaluation
    if training.max_steps is not None and training.warmup_steps > training.max_steps:
        yield "training.warmupSteps", f"never done in {training.max_steps} steps: learningRate is not reached"
    if evaluation is not None:
        yield from gate.warnings(evaluation)
    if spec.engine_ref is not None and spec.engine is None:
        known = "what that engine serves is known in its cluster alone, and nothing is checked against it here"
        yield "engineRef", f"{known}; say it by hand, such as engine: {{maxLoraRank: 16, dtype: bfloat16}}"


def _engine(engine: Engine | None) -> Iterator[Fault]:
    if engine is None:
        return
    for name, value, known in (("device", engine.device, DEVICES), ("dtype", engine.dtype, DTYPES)):
        if value is not None and value.lower() not in known:
            yield f"engine.{name}", f"{value!r} is none of {', '.join(known)}"


def _checkpoint(spec: TrainSpec) -> Iterator[Fault]:
    volume = spec.checkpoint.volume if spec.checkpoint is not None else None
    if volume is not None and volume.claim_name is not None and volume.empty_dir is not None:
        yield "checkpoint.volume", "give claimName or emptyDir, not both"


def _dataset(spec: TrainSpec) -> Iterator[Fault]:
    source = spec.dataset.source
    given = [part for part in (source.hub, source.config_map_ref, source.pvc, source.url, source.path) if part]
    if len(given) != 1:
        yield "dataset.source", "exactly one of hub, configMapRef, pvc, url and path must be given"
    if source.pvc is not None and ".." in source.pvc.path.split("/"):
        yield "dataset.source.pvc.path", "path must stay in the volume"
    if source.hub is None and spec.dataset.split != "train":
        yield "dataset.split", "needs dataset.source.hub: a file has no splits"
    template, is_template = spec.dataset.template, spec.dataset.format is DatasetFormat.TEMPLATE
    if is_template and template is None:
        yield "dataset.template", "format: Template needs it"
    if template is not None and not is_template:
        yield "dataset.template", "template belongs to format: Template"
    if is_template and spec.dataset.column_map:
        yield "dataset.columnMap", "columnMap has no use with format Template: name the columns in template"
    known = (*COLUMNS[spec.dataset.format], *OPTIONAL_COLUMNS[spec.dataset.format])
    for column in () if is_template else spec.dataset.column_map or ():
        if column not in known:
            yield f"dataset.columnMap.{column}", f"format {spec.dataset.format.value} has {', '.join(known)}"
    if template is not None:
        yield from _template(template)


def _template(template: RowTemplate) -> Iterator[Fault]:
    given = (template.prompt is not None, template.completion is not None, template.text is not None)
    if given not in {(True, True, False), (False, False, True)}:
        yield "dataset.template", "give prompt and completion, or text"
    for name, text in (("prompt", template.prompt), ("completion", template.completion), ("text", template.text)):
        if text is not None and (fault := _pattern(text)):
            yield f"dataset.template.{name}", fault


def _pattern(text: str) -> str | None:
    try:
        parts = [part for part in string.Formatter().parse(text) if part[1] is not None]
    except ValueError as error:
        return f"{error}; write {{{{ and }}}} for braces"
    for _, column, form, conversion in parts:
        if not column or form or conversion or not set(".[").isdisjoint(column):
            return f"{{{column}}} is no column's name; write {{{{ and }}}} for braces"
    return None if parts else "names no column: write {column} where its value is to stand"


def _method(spec: TrainSpec) -> Iterator[Fault]:
    training, dpo = spec.training, spec.method is Method.DPO
    if dpo != (spec.dataset.format is DatasetFormat.PREFERENCE):
        yield "dataset.format", "Preference and method: DPO belong together"
    if training.beta is not None and not dpo:
        yield "training.beta", "training.beta belongs to method: DPO"
    if dpo and (training.packing or training.assistant_only_loss or training.completion_only_loss is not None):
        yield "training", "packing, assistantOnlyLoss and completionOnlyLoss belong to method: SFT"
    if dpo and spec.lora.init_lora_weights in CONVERTED:
        yield "lora.initLoraWeights", "Pissa and Olora change the base, which is what method: DPO compares with"


def _lora(lora: TrainLora) -> Iterator[Fault]:
    if ALL_LINEAR in lora.target_modules and len(lora.target_modules) > 1:
        yield "lora.targetModules", "all-linear stands alone: name modules, or give only all-linear"
    if float(lora.lora_dropout) >= 1:
        yield "lora.loraDropout", "must be below 1"
    patterns = {"rankPattern": lora.rank_pattern or {}, "alphaPattern": lora.alpha_pattern or {}}
    for name, pattern in patterns.items():
        for key in pattern:
            if not key or not set(key) <= _MODULE:
                yield f"lora.{name}", f"a key is a module, by the end of its name; {key!r} is none"
    if lora.init_lora_weights in CONVERTED and lora.use_rslora and any(patterns.values()):
        message = "Pissa and Olora can't be converted with useRslora and rankPattern or alphaPattern"
        yield "lora.initLoraWeights", message
    yield from _orthogonal(lora)
    if lora.init_from is not None:
        if (lora.init_from.hub is None) == (lora.init_from.path is None):
            yield "lora.initFrom", "hub must be given, or path by hand"
        if lora.init_lora_weights is not InitLoraWeights.DEFAULT:
            yield "lora.initLoraWeights", "initLoraWeights has no use with initFrom: its weights are the start"


def _orthogonal(lora: TrainLora) -> Iterator[Fault]:
    if lora.init_lora_weights is not InitLoraWeights.ORTHOGONAL:
        return
    if lora.r % 2:
        yield "lora.initLoraWeights", "Orthogonal needs an even r"
    for name, rank in (lora.rank_pattern or {}).items():
        if rank % 2:
            yield f"lora.rankPattern.{name}", "initLoraWeights: Orthogonal needs an even rank"


_MODULE = set(string.ascii_letters + string.digits + "_.-")


def _quantised(spec: TrainSpec) -> Iterator[Fault]:
    if spec.quantization is not None and spec.lora.init_lora_weights in CONVERTED:
        yield "lora.initLoraWeights", "Pissa and Olora need a base that is not quantised"


def _training(spec: TrainSpec) -> Iterator[Fault]:
    training = spec.training
    if training.num_train_epochs is not None and training.max_steps is not None:
        yield "training", "give numTrainEpochs or maxSteps, not both"
    decimals = {
        "learningRate": training.learning_rate,
        "weightDecay": training.weight_decay,
        "maxGradNorm": training.max_grad_norm,
        "beta": training.beta,
    }
    for name, decimal in decimals.items():
        if decimal is not None and not math.isfinite(float(decimal)):
            yield f"training.{name}", f"{decimal} is more than a float can hold"
    if float(training.learning_rate) <= 0:
        yield "training.learningRate", "must be above 0"
    if training.beta is not None and float(training.beta) <= 0:
        yield "training.beta", "must be above 0"
