"""On which terms a LoRAEngine takes an adapter, or the training of one. Pure; `allowing` tells from where."""

from __future__ import annotations

from lora_operator.adapter import EngineLimits
from lora_operator.api.lora_engine import LoRAEngine
from lora_operator.conditions import find, is_true
from lora_operator.errors import Blocked, PassError, Waiting
from lora_operator.labels import Key


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


def limits_of(engine: LoRAEngine | None) -> EngineLimits:
    """Return what the engine allows, as its pass read it from the command line."""
    status = engine.status if engine is not None else None
    flags = status.flags if status is not None else None
    rank = flags.max_lora_rank if flags is not None else None
    return EngineLimits(max_lora_rank=int(rank) if rank is not None else None)
