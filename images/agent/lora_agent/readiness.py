"""Whether the agent tells kubelet that its pod is ready. Pure; `design: Readiness` in one function.

Nothing here may keep base-model capacity out of service for longer than the bound.
"""

from __future__ import annotations

from collections.abc import Set as AbstractSet

from lora_agent.life import Life


def is_ready(  # noqa: PLR0913 - everything that readiness depends on, by keyword
    life: Life, *, was_ready: bool, unsettled: AbstractSet[str], on_disk: AbstractSet[str], now: float, bound: float
) -> bool:
    """Tell whether the pod is ready.

    First: once every entry has settled, at the latest `bound` seconds after the engine's first healthy answer.
    Then for good, but for the time that a restarted engine is refilled from files on disk, within the same bound.
    `unsettled` and `on_disk` are engine names that are wanted.
    """
    refilling = life.refill & unsettled & on_disk
    if life.healthy_since is None:
        # An engine that is down serves nothing: to be out now costs nothing, and it comes back refilled.
        return was_ready and not refilling
    if not unsettled or now - life.healthy_since >= bound:
        return True
    return was_ready and not refilling
