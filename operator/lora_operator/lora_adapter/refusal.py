"""The adapter library's refusal, as a pass raises and tells it. Pure."""

from __future__ import annotations

from lora_operator.adapter import Verdict
from lora_operator.errors import PassError


class NotServableError(PassError):
    """The adapter library's refusal. `unknown`: nothing is wrong, but something could not be looked at."""

    def __init__(self, verdict: Verdict) -> None:
        super().__init__(verdict.reason, verdict.message())
        self.unknown = verdict.compatible == "Unknown"
