"""`lora-train --check`: everything about a spec that needs no GPU and no weights, told line by line.

One fault does not hide the next: what doesn't depend on it is looked at all the same. What needs the Hub and can't
reach it is not checked, which is no fault.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, TypeVar

from lora_operator.adapter import WEIGHTS
from lora_operator.protocol.training import Reason, Result
from lora_trainer import (
    base,
    building,
    data,
    evaluating,
    machine,
    memory,
    outline,
    permission,
    positions,
    recipe,
    saved,
    servable,
    spec_rules,
    start,
    tokens,
)
from lora_trainer.base import BaseModel
from lora_trainer.by_hand import TrainSpec
from lora_trainer.hub import Patience
from lora_trainer.machine import Machine
from lora_trainer.result import Refusal, failed
from lora_trainer.spec import Identity, dtype_of

PATIENCE_SECONDS: Final = 5.0
MANY_CUT: Final = 0.05

T = TypeVar("T")


@dataclass(kw_only=True)
class Report:
    """What was found so far."""

    refusals: list[Refusal] = field(default_factory=list)

    def line(self, mark: str, words: str) -> None:
        """Say one finding."""
        sys.stdout.write(f"{mark:<12} {words}\n")

    def step(self, name: str, take: Callable[[], T]) -> T | None:
        """Take one step; None where it was refused or could not be taken."""
        try:
            return take()
        except Refusal as refusal:
            if refusal.reason is Reason.HUB_UNAVAILABLE:
                self.line("not checked", f"{name}: {str(refusal).removeprefix(name).lstrip()}")
            else:
                self.line("refused", str(refusal))
                self.refusals.append(refusal)
            return None


@dataclass(frozen=True, kw_only=True, slots=True)
class Question:
    """What is checked, and with what."""

    spec: TrainSpec
    identity: Identity
    folder: Path
    output: Path | None
    patience: Patience
    machine: Machine


def run(question: Question, report: Report) -> Result:
    """Check everything and return the Result: Checked, or the first refusal's."""
    spec = question.spec
    report.line("ok", "spec: every field is known and in its range")
    for where, words in spec_rules.warnings(spec):
        report.line("warning", f"{where}: {words}")
    output = question.output
    if output is not None:
        report.step("--output", lambda: saved.check_output(output))
    report.step("training.extraArgs", lambda: _config(question, report))
    adapter = report.step("lora.initFrom", lambda: _servable(question, report))
    model = report.step("baseModel", lambda: _base(question, report))
    found = None
    if model is not None:
        found = report.step("lora", lambda: _outline(question, model, adapter, report))
    rows, held_out = report.step("dataset", lambda: _data(question, report)) or (None, None)
    counted = None
    if rows is not None and model is not None:
        counted = report.step("dataset", lambda: _tokens(question, rows, model, report))
    elif rows is not None:
        report.line("not checked", "dataset: the share of trained tokens needs the base's tokenizer")
    if spec.output.hub is not None:
        report.step("output.hub", lambda: _permission(question, report))
    if found is not None and model is not None:
        parts = [rows.dataset, held_out] if rows is not None and counted is not None else []
        report.step(positions.FIELD, lambda: _length(question, found, model, parts, report))
        _memory(question, found, counted.longest if counted is not None else spec.training.max_length, report)
        report.step("--output", lambda: _room(question, found, model, adapter, report))
    if report.refusals:
        first = report.refusals[0]
        return failed(first.reason, str(first))
    return Result(reason=Reason.CHECKED, message="nothing was found to be wrong")


def _config(question: Question, report: Report) -> None:
    """Let trl and transformers read the arguments."""
    spec, device = question.spec, question.machine
    building.check_extra_args(spec)
    config = building.config(spec, output_dir="state", accelerator=device.accelerator)
    name = type(config).__name__
    report.line("ok", f"training: {name} takes it, {len(spec.training.extra_args)} of it by extraArgs")
    if said := recipe.optimiser(spec, accelerator=device.accelerator)[1]:
        report.line("warning", said)


def _servable(question: Question, report: Report) -> Path | None:
    spec = question.spec
    folder = start.fetch(spec, token=question.identity.adapter_token, patience=question.patience)
    servable.check_config(spec, folder)
    report.line("ok", f"lora: {_engine(spec)} could serve what will come out, by its config")
    return folder


def _engine(spec: TrainSpec) -> str:
    return f"{spec.engine.type} {spec.engine.version or ''}".strip() if spec.engine is not None else "vLLM"


def _base(question: Question, report: Report) -> BaseModel:
    spec, token, patience = question.spec, question.identity.base_token, question.patience
    revision = base.resolve(spec, token=token, patience=patience)
    model = base.fetch(spec, revision=revision, token=token, patience=patience, weights=False)
    report.line("ok", f"baseModel: {model.name} at {revision[:19]}")
    return model


def _outline(question: Question, model: BaseModel, adapter: Path | None, report: Report) -> outline.Outline:
    spec = question.spec
    shapes = base.shapes(model)
    servable.check_modules(spec, shapes)
    servable.check_start(spec, adapter, shapes)
    found = outline.of(spec, model)
    report.line(
        "ok",
        f"lora: {found.adapter_parameters:,} parameters on {found.parameters:,} of a {found.model_type} of "
        f"{found.layers} layers",
    )
    for said in found.warnings:
        report.line("warning", said)
    return found


def _data(question: Question, report: Report) -> tuple[data.Data, Any]:
    def load(split: str | None = None) -> data.Data:
        token = question.identity.dataset_token
        return data.load(question.spec, folder=question.folder, token=token, patience=question.patience, split=split)

    whole = load()
    report.line("ok", f"dataset: {whole.rows} rows of {whole.name}, all of format {question.spec.dataset.format.value}")
    rows, held_out = evaluating.held_out(question.spec, whole, load)
    if held_out is not None:
        report.line("ok", f"evaluation: {len(held_out)} rows to evaluate on, {rows.rows} to train on")
    return rows, held_out


def _tokens(question: Question, rows: data.Data, model: BaseModel, report: Report) -> tokens.Tokens:
    words = tokens.tokenizer(model)
    data.check_template(rows, words, spec=question.spec)
    found = tokens.check(question.spec, rows, words)
    report.line("ok", f"dataset: {found}")
    if found.cut > MANY_CUT * found.rows:
        report.line("warning", f"training.maxLength: {found.cut} of {found.rows} rows are longer, and cut")
    return found


def _length(question: Question, found: outline.Outline, model: BaseModel, parts: list[Any], report: Report) -> None:
    if said := tokens.within(question.spec, found.positions, parts, base=model):
        report.line("warning", said)


def _permission(question: Question, report: Report) -> None:
    output = question.spec.output.hub
    if output is not None:
        said = permission.check(output, token=question.identity.output_token, patience=question.patience)
        report.line("ok", f"output.hub: {said}")


def _room(question: Question, found: outline.Outline, model: BaseModel, adapter: Path | None, report: Report) -> None:
    output = question.output
    if output is None:
        return
    start = (adapter / WEIGHTS).stat().st_size if adapter is not None else 0
    tokenizer = sum(path.stat().st_size for path in model.folder.glob("tokenizer*"))
    needed = memory.room(question.spec, found, start=start, tokenizer=tokenizer)
    report.line("ok", f"--output: {memory.check_room(needed, free=machine.free(output))}")


def _memory(question: Question, found: outline.Outline, longest: int, report: Report) -> None:
    spec, device = question.spec, question.machine
    dtype = dtype_of(spec, accelerator=device.accelerator)
    estimate = memory.estimate(spec, found, dtype=dtype, longest=longest, accelerator=device.accelerator)
    if device.memory and estimate.total > device.memory:
        report.line(
            "warning",
            f"resources: about {estimate} are needed, and {device.name} has {memory.gib(device.memory)}; lower "
            "training.perDeviceTrainBatchSize or training.maxLength, or give quantization",
        )
    else:
        has = f" of {memory.gib(device.memory)}" if device.memory else ""
        report.line("ok", f"resources: about {estimate} are needed{has} on {device.name}")
