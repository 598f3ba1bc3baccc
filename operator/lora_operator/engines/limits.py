"""What is known of an engine, completed by what follows from it: the limits by which an adapter is judged. Pure.

Operator and agent know different things at different times: flags of a command line, a version that the engine tells,
the config of its base. Each hands what it has; what nobody knows stays unknown, for which the adapter library refuses
nothing but a LoRA on the head.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Final

from lora_operator.adapter import EngineLimits

_CPU_BUILD: Final = "+cpu"
"""What the version of vLLM's own builds for the CPU ends with."""
_KEPT: Final = frozenset({"float16", "bfloat16"})
"""What `--dtype auto` leaves as the base's config has it; what it makes of float32 depends on the card."""


def completed(known: EngineLimits, *, base: Mapping[str, object] | None) -> EngineLimits:
    """Return the limits with the device that the version names, and what `--dtype auto` comes to for this base."""
    of_cpu = known.version is not None and known.version.endswith(_CPU_BUILD)
    return replace(
        known,
        device="cpu" if of_cpu else known.device,
        dtype=_stored_dtype(base or {}) if known.dtype == "auto" else known.dtype,
    )


def _stored_dtype(config: Mapping[str, object]) -> str | None:
    """Return the type of the base's weights by its config; a model of several parts has it in its decoder's."""
    text = config.get("text_config")
    for part in (config, text if isinstance(text, Mapping) else {}):
        for name in ("dtype", "torch_dtype"):
            if (found := part.get(name)) in _KEPT:
                return str(found)
    return None
