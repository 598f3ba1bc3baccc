"""Running other programs: quiet when they work, their last words in the error when they do not."""

import os
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

LAST_LINES = 40


class CommandError(RuntimeError):
    """A program ended with an error; the message holds the end of what it printed."""


def run(command: Sequence[str | Path], *, env: Mapping[str, str] | None = None, cwd: Path | None = None) -> str:
    """Run a command to its end and return what it printed on standard output."""
    words = [str(word) for word in command]
    done = subprocess.run(
        words, env={**os.environ, **(env or {})}, cwd=cwd, capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        said = "\n".join((done.stdout + done.stderr).splitlines()[-LAST_LINES:])
        raise CommandError(f"{words[0]} ended with {done.returncode}: {' '.join(words)}\n{said}")
    return done.stdout
