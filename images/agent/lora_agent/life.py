"""One life of the engine as the agent sees it: when it became healthy, who has answered, what a restart took away.

Pure: `after` gives the next life from the last one and one look at the engine. Readiness and the plan read it.
"""

from __future__ import annotations

from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace

from lora_agent.engine import Health, View


@dataclass(frozen=True, slots=True, kw_only=True)
class Life:
    """What is true since the engine's last start."""

    healthy_since: float | None = None
    """The first healthy answer of this life, on the clock that is given to `after`; what it has may still be untold."""
    answered: frozenset[str] = frozenset()
    """Adapters that the engine lists and that have answered a probe."""
    refill: frozenset[str] = frozenset()
    """Adapters that had answered when the engine's last life ended, and have not answered in this one yet."""
    loads: int = 0


def after(life: Life, view: View, *, wanted: AbstractSet[str], now: float) -> Life:
    """Return the life that a look at the engine shows.

    A restart is seen as nothing listening on the port, or as an engine that has forgotten all that it should still
    hold. A single adapter missing is no restart: somebody unloaded it by hand.
    """
    if view.health is Health.DOWN:
        return Life(refill=life.refill | life.answered)
    if view.health is Health.SILENT:
        return life
    life = replace(life, healthy_since=now if life.healthy_since is None else min(life.healthy_since, now))
    if view.health is Health.UNLISTED:
        return life
    kept = life.answered & view.adapters.keys()
    if life.answered & wanted and not kept:
        life = Life(healthy_since=now, refill=life.refill | life.answered)
    return replace(life, answered=kept, refill=life.refill - kept)


def answered(life: Life, name: str) -> Life:
    """Return the life in which this adapter has answered its probe."""
    return replace(life, answered=life.answered | {name}, refill=life.refill - {name})


def loaded(life: Life) -> Life:
    """Return the life with one load more: each takes a slot until the engine restarts, even after its unload."""
    return replace(life, loads=life.loads + 1)
