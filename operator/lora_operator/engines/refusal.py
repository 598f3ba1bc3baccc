"""Why an engine is not adopted. Pure.

An engine type says it of its own ways, the LoRAEngine pass of everything else.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a Deployment is not adopted: a condition's reason, and a sentence with what to change."""

    reason: str
    message: str
