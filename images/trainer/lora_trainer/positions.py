"""How long a sequence the base can take: `training.maxLength`, and the rows, against its positions. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from lora_operator.api.training import Training
from lora_operator.protocol.training import Reason
from lora_trainer.result import Refusal

FIELD: Final = "training.maxLength"
_TABLE: Final = re.compile(r"(^|[._])(wpe|embed_positions|position_embeddings?|positions_embed)$")
"""What families call a table with a row for each position: a row further on is an IndexError."""
_STRETCHED: Final = ("llama3", "longrope")
"""Rotary scalings whose max_position_embeddings is that of the stretched model already."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Positions:
    """The positions of a base."""

    limit: int | None
    learnt: bool
    """There is a table of them, and none beyond it."""

    def fewer_than(self, max_length: int) -> bool:
        """Tell whether rows of this length would go beyond."""
        return self.limit is not None and max_length > self.limit


def of(config: Mapping[str, Any], modules: Iterable[str]) -> Positions:
    """Return the positions of a base. `modules` are the names of its embeddings and tables: learnt ones are there."""
    return Positions(limit=limit(config), learnt=any(_TABLE.search(module) for module in modules))


def check(found: Positions, training: Training, *, name: str, longest: int | None = None) -> str:
    """Refuse rows for which the base has learnt no positions; return the warning where there only could be such.

    `longest` is the longest of all rows, in tokens; None where that is not known.
    """
    if not found.fewer_than(training.max_length):
        return ""
    more = f"{FIELD}: {training.max_length} is more than the {found.limit} positions that {name}"
    if not found.learnt:
        return f"{more} was made for"
    if training.packing:
        message = f"{more} has learnt, and training.packing fills rows to that length; lower it to {found.limit}"
        raise Refusal(Reason.CONFIG_INVALID, message)
    if longest is None:
        return f"{more} has learnt: a row that is longer than these will be refused"
    if found.fewer_than(longest):
        message = f"{more} has learnt, and a row has {longest} tokens; lower it to {found.limit}, which cuts such rows"
        raise Refusal(Reason.CONFIG_INVALID, message)
    return f"{more} has learnt; the longest row has {longest} tokens, so that it is trained on as it is"


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
