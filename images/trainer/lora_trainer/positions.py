"""How long a sequence the base can take: `training.maxLength` against its positions."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, Final

from lora_operator.protocol.training import Reason
from lora_trainer.result import Refusal

FIELD: Final = "training.maxLength"
_TABLE: Final = re.compile(r"(^|[._])(wpe|embed_positions|position_embeddings?|positions_embed)$")
"""What families call a table with a row for each position: a row further on is an IndexError."""
_STRETCHED: Final = ("llama3", "longrope")
"""Rotary scalings whose max_position_embeddings is that of the stretched model already."""


def check(max_length: int, config: Mapping[str, Any], modules: Iterable[str], *, name: str) -> str:
    """Refuse a length for which the base has no positions; return the warning where it only was not made for it.

    `modules` are the names of the base's embeddings and tables: learned positions are among them.
    """
    positions = limit(config)
    if positions is None or max_length <= positions:
        return ""
    if any(_TABLE.search(module) for module in modules):
        message = f"{FIELD}: {max_length} is more than the {positions} positions that {name} has learnt; lower it"
        raise Refusal(Reason.CONFIG_INVALID, message)
    return f"{FIELD}: {max_length} is more than the {positions} positions that {name} was made for"


def limit(config: Mapping[str, Any]) -> int | None:
    """Return for how many positions a base was made, by its config; None where that says none."""
    given = config.get("max_position_embeddings", config.get("n_positions"))
    if not isinstance(given, int):
        return None
    scaling = config.get("rope_parameters") or config.get("rope_scaling") or {}
    factor, kind = scaling.get("factor"), scaling.get("rope_type", scaling.get("type"))
    if not isinstance(factor, int | float) or kind in _STRETCHED:
        return given
    original = scaling.get("original_max_position_embeddings") or given
    return max(given, int(original * factor))
