"""The Hub server as a process of its own, listening where pods can reach it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import httpx2
from huggingface_hub import HfApi, constants
from huggingface_hub.utils.tqdm import disable_progress_bars

START_SECONDS = 60.0
PORTS = (9900, 9901)


def start(state_dir: Path, *, host: str) -> str:
    """Start the Hub server, or find it running; return its URL."""
    url = f"http://{host}:{PORTS[0]}"
    if _answers(url):
        return url
    stop(state_dir)
    state_dir.mkdir(parents=True, exist_ok=True)
    with (state_dir / "hub.log").open("ab") as log:
        # setsid lets go of it: it lives on when this process ends, and is nobody's zombie.
        subprocess.run(
            [
                *("setsid", "--fork", sys.executable),
                *("-m", "hubserver", "--host", host, "--port", str(PORTS[0]), "--files-port", str(PORTS[1])),
                *("--root", str(state_dir / "hub"), "--pid-file", str(_pid_file(state_dir))),
            ],
            stdout=log,
            stderr=log,
            stdin=subprocess.DEVNULL,
            check=True,
        )
    deadline = time.monotonic() + START_SECONDS
    while not _answers(url):
        if time.monotonic() > deadline:
            raise RuntimeError(f"the Hub did not start: see {state_dir / 'hub.log'}")
        time.sleep(0.1)
    return url


def stop(state_dir: Path) -> None:
    """Stop the Hub server of this folder, if it runs."""
    pid_file = _pid_file(state_dir)
    if not pid_file.exists():
        return
    pid = int(pid_file.read_text())
    if _is_ours(pid, pid_file):
        os.kill(pid, signal.SIGTERM)
        while _is_ours(pid, pid_file):
            time.sleep(0.05)
    pid_file.unlink(missing_ok=True)


def publish(url: str, repo: str, folder: Path, *, token: str, private: bool = False) -> str:
    """Upload a folder as a model repository; return the commit. The same content makes no new commit."""
    constants.HF_HUB_DISABLE_XET = True  # the server has no Xet storage, and the client would not ask
    disable_progress_bars()
    api = HfApi(endpoint=url, token=token)
    api.create_repo(repo, exist_ok=True, private=private)
    return api.upload_folder(repo_id=repo, folder_path=folder, commit_message=f"Add {repo}").oid


def _answers(url: str) -> bool:
    try:
        return httpx2.get(f"{url}/_test/requests?match=nothing", timeout=2).status_code == 200
    except httpx2.HTTPError:
        return False


def _pid_file(state_dir: Path) -> Path:
    return state_dir.resolve() / "hub.pid"


def _is_ours(pid: int, pid_file: Path) -> bool:
    """Tell whether this process is the server that wrote the file, not a later owner of its number."""
    try:
        return str(pid_file).encode() in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False
