"""lora-train starts here: signals are heard before anything is imported, which takes seconds on a busy machine."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from lora_trainer.preemption import Preemptions


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one attempt, or look, and return the exit code."""
    preemptions = Preemptions()
    preemptions.listen()
    with preemptions.held("ending as soon as the program has started"):
        from lora_trainer import command
    return command.main(sys.argv[1:] if arguments is None else arguments, preemptions)


if __name__ == "__main__":
    sys.exit(main())
