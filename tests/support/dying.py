"""lora-merge that ends at a chosen call: `python -m support.dying kill pwrite 3 BASE ADAPTER OUT`.

At the third `os.pwrite` the process is killed, or (`stop` in the place of `kill`) stopped until it is told to go on,
or (an errno's name) the call fails; before an end `pwrite` writes half of its bytes. The program has no seam for this:
what is replaced is in the standard library.
"""

from __future__ import annotations

import errno
import itertools
import os
import pathlib
import signal
import sys
import threading
from typing import Any


def main(how: str, call: str, nth: int, arguments: list[str]) -> int:
    """Replace the call, then merge."""
    from lora_merger.__main__ import main as merge

    owner: Any = pathlib.Path if call in {"rename", "replace"} else os
    real = getattr(owner, call)
    count, lock = itertools.count(1), threading.Lock()

    def replaced(*args: Any, **kwargs: Any) -> Any:
        with lock:
            this_one = next(count) == nth
        if not this_one:
            return real(*args, **kwargs)
        if how == "stop":
            os.kill(os.getpid(), signal.SIGSTOP)
            return real(*args, **kwargs)
        if call == "pwrite":
            real(args[0], args[1][: len(args[1]) // 2], args[2])
        if how == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        raise OSError(getattr(errno, how), os.strerror(getattr(errno, how)))

    setattr(owner, call, replaced)
    return merge(arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4:]))
