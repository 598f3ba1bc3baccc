"""Many runs of lora-train in one process of the heavy environment: the libraries are imported once.

Reads `[[argument, ...], ...]` from stdin and prints `[{"exit": ..., "out": ..., "err": ...}, ...]`.
"""

import contextlib
import io
import json
import sys

from lora_trainer.__main__ import main


def run(arguments: list[str]) -> dict[str, object]:
    """Run once, and keep what it says."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            code = int(main(arguments))
        except SystemExit as end:  # argparse's
            code = int(end.code or 0)
    return {"exit": code, "out": out.getvalue(), "err": err.getvalue()}


if __name__ == "__main__":
    asked = json.load(sys.stdin)
    print("\n" + json.dumps([run(arguments) for arguments in asked]))
