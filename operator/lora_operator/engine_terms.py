"""On which terms a LoRAEngine takes an adapter, or the training of one. Pure; `allowing` tells from where."""

from __future__ import annotations

from collections.abc import Mapping

from lora_operator.adapter import Base, EngineLimits, base_from_config, base_from_shapes
from lora_operator.api.lora_engine import EngineFacts, EngineFlags, EngineStatus, LoRAEngine
from lora_operator.conditions import find, is_true
from lora_operator.engines.limits import completed
from lora_operator.errors import Blocked, PassError, Waiting
from lora_operator.labels import Key
from lora_operator.protocol import door


def obstacle(  # noqa: PLR0913 - one question of many parts
    engine: LoRAEngine | None, *, name: Key, allowed: bool, namespace: str, base: str, base_field: str
) -> PassError | None:
    """Return what an engine has against an object of this namespace and base, or None. `base_field` names the base."""
    if engine is None:
        return Blocked("EngineNotFound", f"there is no {name}: correct spec.engineRef, or create it")
    if not allowed:
        return Blocked(
            "NamespaceNotAllowed",
            f"{name} takes no adapters from namespace {namespace}: its spec.allowedNamespaces has to allow it",
        )
    if engine.deleting:
        return Blocked(
            "EngineGone",
            f"{name} is being deleted and unloads its adapters: use another engine",
        )
    status = engine.status
    if status is None or not is_true(status.conditions, "Adopted"):
        ready = find(status.conditions, "Ready") if status is not None else None
        why = f"{ready.reason}: {ready.message}" if ready is not None else "its Deployment is not adopted yet"
        return Waiting("EngineNotReady", f"{name} can't hold adapters yet ({why})", after=30)
    if status.base_model and status.base_model != base:
        return Blocked(
            "BaseModelMismatch",
            f"{base_field} is {base}, but {name} serves {status.base_model}: "
            f"correct {base_field}, or name an engine of that base in spec.engineRef",
        )
    return None


def limits_of(engine: LoRAEngine | None, *, base: Mapping[str, object] | None) -> EngineLimits:
    """Return what the engine allows, by what its pass knows of it and by its base's config, where that is known."""
    if engine is None:
        return EngineLimits()
    status = engine.status or EngineStatus()
    flags, facts = status.flags or EngineFlags(), status.engine or EngineFacts()
    known = EngineLimits(
        type=engine.spec.type.value,
        version=facts.version,
        device=facts.device.value if facts.device is not None else None,
        max_lora_rank=int(flags.max_lora_rank) if flags.max_lora_rank is not None else None,
        dtype=flags.dtype,
        lora_dtype=flags.lora_dtype,
        target_modules=flags.lora_target_modules,
    )
    return completed(known, base=base)


def reported_base(known: door.Base) -> Base | None:
    """Return the base as an agent reports it: by the shapes that it read beside the engine, else by the config."""
    exact = base_from_shapes(known.shapes, known.config) if known.shapes else None
    return exact or base_from_config(known.config)
