"""Many runs of lora-train in one process, as in `many_runs.py`, each of which gets SIGTERM after a step or two."""

import json
import os
import signal
import sys
from typing import Any

from lora_trainer import keeping
from support.many_runs import run

place: Any = keeping
agreed, calls = place.agreed, iter(range(1_000))


def ending(*asked: Any) -> list[bool]:
    """Ask as ever; the signal comes when it is too late for this step, and the next one is the last."""
    if next(calls) % 2:
        os.kill(os.getpid(), signal.SIGTERM)
    found: list[bool] = agreed(*asked)
    return found


if __name__ == "__main__":
    place.agreed = ending
    asked = json.load(sys.stdin)
    print("\n" + json.dumps([run(arguments) for arguments in asked]))
