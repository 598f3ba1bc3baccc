"""Run the operator as a process against a test's control plane, and wait for what it does."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from localcluster import ControlPlane

DEADLINE = 180.0
Found = TypeVar("Found")


@dataclass(frozen=True)
class Operator:
    """A running operator. `user` is its name in the audit log."""

    process: subprocess.Popen[bytes]
    log: Path
    user: str
    port: int

    def kill(self) -> None:
        """End it as a node's failure would."""
        self.process.kill()
        self.process.wait()


@contextmanager
def running_operator(
    plane: ControlPlane,
    folder: Path,
    *,
    user: str = "the-operator",
    groups: Sequence[str] = ("system:masters",),
    **settings: str,
) -> Iterator[Operator]:
    """Run an operator for the time of a with-block; `settings` are LORA_OPERATOR_<NAME>, or whole names in capitals."""
    folder.mkdir(parents=True, exist_ok=True)
    port, log = free_port(), folder / "operator.log"
    given = {name if name.isupper() else f"LORA_OPERATOR_{name.upper()}": value for name, value in settings.items()}
    environment = {
        "PATH": os.environ["PATH"],
        "KUBECONFIG": str(plane.kubeconfig_for_user(user, groups=groups)),
        "LORA_OPERATOR_METRICS_PORT": str(port),
        "LORA_OPERATOR_PROGRESS_PORT": str(free_port()),
    }
    with log.open("ab") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "lora_operator"], env=environment | given, stdout=output, stderr=output
        )
    operator = Operator(process, log, user, port)
    try:
        eventually(lambda: _ready(operator), "the operator to be ready")
        yield operator
    finally:
        process.terminate()
        try:
            process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            operator.kill()


def eventually(look: Callable[[], Found | None], what: str, *, deadline: float = DEADLINE) -> Found:
    """Look until there is something to see, and return it; fail, naming what was waited for, after the deadline."""
    until = time.monotonic() + deadline
    while True:
        if found := look():
            return found
        if time.monotonic() > until:
            raise TimeoutError(f"waited {deadline:.0f} s for {what}")
        time.sleep(0.2)


def free_port() -> int:
    """Return a port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _ready(operator: Operator) -> bool:
    if operator.process.poll() is not None:
        raise RuntimeError(
            f"the operator ended with {operator.process.returncode}:\n{operator.log.read_text()[-3000:]}"
        )
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{operator.port}/readyz", timeout=5) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False
