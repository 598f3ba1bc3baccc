"""Asks the adapter library whether an engine could serve this: before training by the config, after it by every byte.

Nothing that an engine would refuse costs a GPU, and nothing that it would refuse is published.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Final, Literal

from lora_operator.adapter import Base, EngineLimits, Verdict, from_config, inspect, open_directory
from lora_operator.api.served_lora import served_config
from lora_operator.protocol.training import Reason
from lora_trainer import log
from lora_trainer.result import Refusal
from lora_trainer.spec import ALL_LINEAR, Engine, TrainSpec, suggestion

_DEVICES: Final[dict[str, Literal["cpu", "cuda"]]] = {"cpu": "cpu", "cuda": "cuda"}


def check_config(spec: TrainSpec, start: Path | None = None) -> None:
    """Refuse, before anything is trained, what the engine would refuse of the result: by the config that it will have.

    `start` is the folder of the adapter to go on from, whose shape the result has.
    """
    config = json.dumps(served_config(spec.lora)).encode()
    adapter = from_config(config) if start is None else open_directory(start)
    verdict = inspect(adapter, None, _limits(spec.engine), base_name=None if start else spec.base_model.name)
    if start is not None and verdict.compatible == "False":
        raise Refusal(Reason.NOT_SERVABLE, f"lora.initFrom: {verdict.message()}")
    _refuse(verdict, engine=_engine(spec))


def check_targets(spec: TrainSpec, base: Base | None) -> None:
    """Refuse a target module that the base does not have: peft passes over it as long as another one matches."""
    if base is None or spec.lora.target_modules == (ALL_LINEAR,) or spec.lora.init_from is not None:
        return
    ends = sorted({name.rpartition(".")[2] for name in base.modules})
    for target in spec.lora.target_modules:
        if not any(name == target or name.endswith(f".{target}") for name in base.modules):
            message = (
                f"lora.targetModules: {spec.base_model.name} has no module {target!r}{suggestion(target, ends)}; "
                f"it has {', '.join(ends)}"
            )
            raise Refusal(Reason.CONFIG_INVALID, message)


def check_adapter(spec: TrainSpec, folder: Path, base: Base | None) -> Verdict:
    """Read every byte of the saved adapter and refuse what the engine would refuse, or answer wrongly with."""
    verdict = inspect(open_directory(folder), base, _limits(spec.engine), base_name=spec.base_model.name)
    _refuse(verdict, engine=_engine(spec))
    return verdict


def _refuse(verdict: Verdict, *, engine: str) -> None:
    if verdict.compatible == "False":
        raise Refusal(Reason.NOT_SERVABLE, f"{engine} could not serve this adapter: {verdict.message()}")
    for finding in verdict.findings:
        if finding.code not in _EXPECTED:
            log.say(f"warning: {finding}")


_EXPECTED: Final[Sequence[str]] = ("NotChecked",)
"""Before training there are no tensors, and without an engine no limits: not worth a line."""


def _engine(spec: TrainSpec) -> str:
    ref = spec.engine_ref
    return f"engineRef {ref.name}" if ref is not None else "engine"


def _limits(engine: Engine | None) -> EngineLimits:
    if engine is None:
        return EngineLimits()
    return EngineLimits(
        type=engine.type,
        version=engine.version,
        device=_DEVICES.get((engine.device or "").lower()),
        max_lora_rank=engine.max_lora_rank,
        dtype=engine.dtype,
    )
