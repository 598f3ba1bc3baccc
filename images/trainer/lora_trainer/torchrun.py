"""torchrun, as `launch.py` starts it: how it and its workers end is a line, and not a traceback of the launcher's."""

from __future__ import annotations

import logging
import os
import sys

from lora_trainer import log


def main() -> int:
    """Run torchrun with the command line that this process was given, and return its exit code."""
    os.environ.setdefault("LOGLEVEL", "CRITICAL")  # the launcher's own; what it says is said below
    from torch.distributed import run
    from torch.distributed.elastic.multiprocessing import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

    logging.getLogger("torch.distributed.elastic.multiprocessing.api").setLevel(logging.CRITICAL)
    try:
        run.main()
    except SignalException as stopped:
        return 128 + int(stopped.sigval)
    except ChildFailedError as error:
        for rank, failure in sorted(error.failures.items()):
            log.say(f"process {rank} ended with {failure.exitcode}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
