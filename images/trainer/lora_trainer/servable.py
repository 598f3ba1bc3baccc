"""Asks the adapter library whether an engine could serve this: before training by the config, after it by every byte.

Nothing that an engine would refuse costs a GPU, and nothing that it would refuse is published.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Final

from lora_operator.adapter import (
    DEVICES,
    Adapter,
    Base,
    Code,
    EngineLimits,
    Verdict,
    from_config,
    inspect,
    open_directory,
)
from lora_operator.api.lora import CONVERTED
from lora_operator.api.served_lora import served_config
from lora_operator.protocol.training import Reason
from lora_trainer import log
from lora_trainer.result import Refusal
from lora_trainer.spec import ALL_LINEAR, Engine, TrainSpec, suggestion

_OTHER_BASE: Final = "go on from an adapter of this base, or name in baseModel the base that it was trained on"
_START_FIXES: Final[Mapping[Code, str]] = {
    Code.RANK_TOO_HIGH: "go on from an adapter of a lower rank, begin anew without initFrom, or raise --max-lora-rank",
}
"""What to do about an adapter to go on from, where the library's advice is for one to be served."""


def check_config(spec: TrainSpec, start: Path | None = None) -> None:
    """Refuse, before anything is trained, what the engine would refuse of the result: by the config that it will have.

    `start` is the folder of the adapter to go on from, whose shape the result has.
    """
    adapter = _planned(spec) if start is None else open_directory(start)
    verdict = inspect(adapter, None, _limits(spec.engine), base_name=None if start else spec.base_model.name)
    if start is None:  # else `check_start` says more, when the base is known
        _refuse(verdict, engine=_engine(spec))
    else:
        _refuse_start(verdict)


def check_start(spec: TrainSpec, start: Path | None, base: Base | None) -> None:
    """Refuse an adapter to go on from that is none of this base."""
    if start is None:
        return
    verdict = _judge(start, spec, base)
    _refuse(_refuse_start(verdict), engine=_engine(spec))


def _refuse_start(verdict: Verdict) -> Verdict:
    """Refuse what can't be gone on from; return the verdict with advice for one who trains."""
    verdict = verdict.advising(_START_FIXES, own_base=_OTHER_BASE)
    if verdict.compatible == "False":
        raise Refusal(Reason.NOT_SERVABLE, f"lora.initFrom: {verdict.message()}")
    return verdict


def check_modules(spec: TrainSpec, base: Base | None) -> None:
    """Refuse a module that is named and that the base does not have: peft passes over it without a word."""
    lora = spec.lora
    if base is None or lora.init_from is not None:
        return
    named: dict[str, Iterable[str]] = {
        "targetModules": () if lora.target_modules == (ALL_LINEAR,) else lora.target_modules,
        "rankPattern": lora.rank_pattern or (),
        "alphaPattern": lora.alpha_pattern or (),
    }
    for field, targets in named.items():
        for target in targets:
            if fault := _unknown_module(target, base, spec):
                raise Refusal(Reason.CONFIG_INVALID, f"lora.{field}: {fault}")
    _check_ranks(spec, base)
    for target in lora.exclude_modules or ():
        if fault := _unknown_module(target, base, spec):  # which may be a part that no adapter can be on
            log.say(f"warning: lora.excludeModules: {fault}")
    # `check_config` has said what there is to warn of; with the base, targets that can't be served on it are known too.
    verdict = inspect(_planned(spec), base, _limits(spec.engine), base_name=spec.base_model.name)
    _refuse_unservable(verdict, engine=_engine(spec))


def _check_ranks(spec: TrainSpec, base: Base) -> None:
    """Refuse a rank that a decomposition of the base's own weights does not have: peft makes a smaller one of it."""
    lora = spec.lora
    if lora.init_lora_weights not in CONVERTED:
        return
    for name, shape in base.modules.items():
        if not _targeted(name, lora.target_modules, base) or _ends(name, lora.exclude_modules or ()):
            continue
        rank = next((rank for key, rank in (lora.rank_pattern or {}).items() if _ends(name, (key,))), lora.r)
        if rank > min(shape):
            message = f"{rank} is more than {name} has, which is of {shape[0]} by {shape[1]}; lower it, or leave it out"
            raise Refusal(Reason.CONFIG_INVALID, f"lora.r: {lora.init_lora_weights.value}: {message}")


def _targeted(name: str, targets: Sequence[str], base: Base) -> bool:
    if targets == (ALL_LINEAR,):
        return name not in {base.embedding, base.head}
    return _ends(name, targets)


def _ends(name: str, targets: Iterable[str]) -> bool:
    return any(name == target or name.endswith(f".{target}") for target in targets)


def _unknown_module(target: str, base: Base, spec: TrainSpec) -> str | None:
    if any(_ends(name, (target,)) for name in base.modules):
        return None
    ends = sorted({name.rpartition(".")[2] for name in base.modules})
    return f"{spec.base_model.name} has no module {target!r}{suggestion(target, ends)}; it has {', '.join(ends)}"


def check_adapter(spec: TrainSpec, folder: Path, base: Base | None) -> Verdict:
    """Read every byte of the saved adapter and refuse what the engine would refuse, or answer wrongly with."""
    verdict = _judge(folder, spec, base)
    _refuse(verdict, engine=_engine(spec))
    return verdict


def _judge(folder: Path, spec: TrainSpec, base: Base | None) -> Verdict:
    """Ask about every byte of the adapter in *folder*."""
    opened = open_directory(folder, stored=base.stored if base else None)
    return inspect(opened, base, _limits(spec.engine), base_name=spec.base_model.name)


def _planned(spec: TrainSpec) -> Adapter:
    return from_config(json.dumps(served_config(spec.lora)).encode())


def _refuse(verdict: Verdict, *, engine: str) -> None:
    _refuse_unservable(verdict, engine=engine)
    for finding in verdict.findings:
        if finding.code not in _EXPECTED:
            log.say(f"warning: {finding}")


def _refuse_unservable(verdict: Verdict, *, engine: str) -> None:
    if verdict.compatible == "False":
        raise Refusal(Reason.NOT_SERVABLE, f"{engine} could not serve this adapter: {verdict.message()}")


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
        device=next((device for device in DEVICES if device == (engine.device or "").lower()), None),
        max_lora_rank=engine.max_lora_rank,
        dtype=engine.dtype,
    )
