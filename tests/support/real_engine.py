"""The real vLLM on this machine's CPU, over the tiny model: `with real_engine.running(folder) as engine`.

The first start anywhere builds the heavy environment and the model into the cache; after that a start takes 20 to 60 s.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from imagebuild import engine as heavy
from tinymodel import cached

START_SECONDS = 600.0
ENVIRONMENT = {
    "VLLM_ALLOW_RUNTIME_LORA_UPDATING": "True",
    "VLLM_NO_USAGE_STATS": "1",
    "HF_HUB_OFFLINE": "1",
    "OMP_NUM_THREADS": "1",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    # One process less: the worker lives in the engine's core.
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    "VLLM_CACHE_ROOT": str(heavy.VLLM_CACHE),
}
FLAGS = [
    "--host=127.0.0.1",
    "--served-model-name=base",
    "--dtype=float32",
    "--enforce-eager",
    "--max-model-len=256",
    "--max-num-seqs=8",
    "--max-num-batched-tokens=256",
    "--kv-cache-memory-bytes=67108864",
    "--distributed-executor-backend=uni",
    "--enable-lora",
    "--max-loras=4",
    "--max-cpu-loras=16",
    "--max-lora-rank=16",
]


@dataclass(kw_only=True)
class RealEngine:
    """One vLLM, which can be killed and started again on its port."""

    folder: Path
    """Where its log goes."""
    port: int
    model: Path = field(default_factory=cached.ensure)
    flags: tuple[str, ...] = ()
    """Beyond FLAGS, or instead of one of them."""
    environment: Mapping[str, str] = field(default_factory=dict)
    _process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """Where it answers."""
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Start it and wait until it is healthy."""
        self.launch()
        self.wait()

    def wait(self) -> None:
        """Wait until it is healthy."""
        deadline = time.monotonic() + START_SECONDS
        while not self._is_healthy():
            if self._process is None or self._process.poll() is not None or time.monotonic() > deadline:
                log = (self.folder / "vllm.log").read_text(errors="replace")
                raise RuntimeError(f"vLLM did not come up:\n{log[-4000:]}")
            time.sleep(0.5)

    def launch(self) -> None:
        """Start it and don't wait."""
        words = [str(heavy.MOUNT / "env/bin/vllm"), "serve", str(self.model), f"--port={self.port}"]
        with (self.folder / "vllm.log").open("ab") as log:
            self._process = subprocess.Popen(
                heavy.command([*words, *FLAGS, *self.flags], engine=heavy.ensure()),
                env={**os.environ, **ENVIRONMENT, **self.environment},
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def kill(self) -> None:
        """Kill it with all its processes, as an OOM would."""
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._process = None

    def _is_healthy(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.url}/health", timeout=5) as answer:
                return bool(answer.status == 200)
        except (urllib.error.URLError, OSError):
            return False


def prepare(
    folder: Path,
    *,
    flags: tuple[str, ...] = (),
    environment: Mapping[str, str] | None = None,
    model: Path | None = None,
) -> RealEngine:
    """Return a vLLM that is not started yet; over the tiny model unless another is given."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    return RealEngine(
        folder=folder, port=port, flags=flags, environment=environment or {}, model=model or cached.ensure()
    )


@contextlib.contextmanager
def running(folder: Path) -> Iterator[RealEngine]:
    """Run a vLLM while the context is open."""
    engine = prepare(folder)
    try:
        engine.start()
        yield engine
    finally:
        engine.kill()
