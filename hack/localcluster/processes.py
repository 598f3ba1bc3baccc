"""Long-running parts of a cluster as plain processes of this machine: start, find again, end.

Every process carries its cluster's id in its environment, and so do its children, so that a cluster can be taken
down whole by whoever comes later, without pid files and whatever became of the one who started it.
"""

import os
import re
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

CLUSTER = "LORA_OPERATOR_CLUSTER"
PART = "LORA_OPERATOR_PART"
OWNER = "LORA_OPERATOR_OWNER"
# Nothing in a cluster talks to anything outside it: a proxy meant for the way out would only be in its way. And a
# cluster may outlive the test session that a TMPDIR belongs to.
NOT_INHERITED = re.compile(r".*_proxy|TMPDIR", re.IGNORECASE)


class NotInTimeError(TimeoutError):
    """Something that was waited for did not come about; the message says what."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Found:
    """A running process of some cluster, as its environment tells."""

    pid: int
    cluster: str
    part: str
    owner: str


def start(command: Sequence[str | Path], *, cluster: str, part: str, log: Path, owner: str = "") -> int:
    """Start a part of a cluster in a session of its own and return its pid, once `find` finds it or it has ended."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as output:
        process = subprocess.Popen(
            [str(word) for word in command],
            env={**environment(cluster, part), OWNER: owner},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            cwd=log.parent,
            start_new_session=True,
        )
    # Popen returns when exec has closed its pipe; the kernel lays out the new program's environment a moment later.
    wait_for(f"{part} to start", lambda: _is_marked(process.pid) or process.poll() is not None, every=0.001)
    # It is found again by its environment; Popen would only warn that it is still running.
    process.returncode = 0
    return process.pid


def environment(cluster: str, part: str) -> dict[str, str]:
    """Return an environment that marks a process, and whatever it starts, as a cluster's."""
    inherited = {name: value for name, value in os.environ.items() if not NOT_INHERITED.fullmatch(name)}
    return {**inherited, CLUSTER: cluster, PART: part}


def find(cluster: str | None = None) -> list[Found]:
    """List the running processes of one cluster, or of all clusters."""
    return [found for found in _all_found() if cluster in (None, found.cluster)]


def stop(cluster: str) -> None:
    """Kill every process of a cluster and return when none is left: nothing of it is meant to outlive it."""
    ended: set[int] = set()
    looks_at_nothing = 0
    while looks_at_nothing < 2:  # a process in the middle of its exec carries no mark for a moment
        left = find(cluster)
        looks_at_nothing = 0 if left else looks_at_nothing + 1
        ended |= {found.pid for found in left}
        for found in left:
            _kill(found.pid)
        time.sleep(0.02)
    for pid in ended:
        _reap(pid)


def wait_for(what: str, true: Callable[[], bool], *, seconds: float = 120, every: float = 0.05) -> None:
    """Wait until a condition holds, or say what did not come about."""
    deadline = time.monotonic() + seconds
    while not true():
        if time.monotonic() > deadline:
            raise NotInTimeError(f"after {seconds:.0f} s still waiting for {what}")
        time.sleep(every)


def this_process() -> str:
    """Return a mark of this process that no later process will carry."""
    return f"{os.getpid()}:{_start_time(os.getpid())}"


def is_running(mark: str) -> bool:
    """Tell whether the process that `this_process` marked still runs."""
    pid, _, started = mark.partition(":")
    return _start_time(int(pid)) == started


def _all_found() -> Iterator[Found]:
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit() and (variables := _environment(folder)) and CLUSTER in variables:
            yield Found(
                pid=int(folder.name),
                cluster=variables[CLUSTER],
                part=variables.get(PART, ""),
                owner=variables.get(OWNER, ""),
            )


def _is_marked(pid: int) -> bool:
    return CLUSTER in _environment(Path("/proc") / str(pid))


def _environment(folder: Path) -> Mapping[str, str]:
    try:
        words = (folder / "environ").read_bytes().decode(errors="replace").split("\0")
    except OSError:  # gone meanwhile, or another user's
        return {}
    return dict(word.partition("=")[::2] for word in words if "=" in word)


def _start_time(pid: int) -> str:
    try:
        return (Path("/proc") / str(pid) / "stat").read_text().rpartition(")")[2].split()[19]
    except OSError:
        return ""


def _kill(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return


def _reap(pid: int) -> None:
    """Collect an ended child of our own: a zombie would look like a process that stays."""
    try:
        os.waitpid(pid, 0)
    except ChildProcessError:  # somebody else's child
        return
