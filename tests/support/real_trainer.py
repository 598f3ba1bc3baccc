"""Runs the real lora-train, in the heavy environment, against a Hub server: one attempt, its exit code, its words."""

from __future__ import annotations

import json
import os
import subprocess
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import hubserver
from hubserver import Hub
from imagebuild import engine, wrappers
from lora_operator.protocol.training import Progress, Result, read_result
from tinymodel import cached

BASE = "acme/tiny"
REPO = "acme/adapter"
CHAT = "acme/chat"
ROW_COUNT = 40

PROMPTS: Sequence[Mapping[str, object]] = [
    {"prompt": f"What is {number} plus one?", "completion": " Forty-two, as always."} for number in range(ROW_COUNT)
]
CHATS: Sequence[Mapping[str, object]] = [
    {"messages": [{"role": "user", "content": f"Say {number}"}, {"role": "assistant", "content": "Forty-two."}]}
    for number in range(ROW_COUNT)
]


def jsonl(rows: Sequence[Mapping[str, object]]) -> str:
    """Return the rows as a file of lines."""
    return "".join(json.dumps(row) + "\n" for row in rows)


@contextmanager
def stocked_hub() -> Iterator[Hub]:
    """Serve the tiny model and a data set from a Hub; the heavy environment is there then."""
    wrappers.write()
    with hubserver.running() as hub:
        hub.add_model(BASE, {path.name: path.read_bytes() for path in cached.ensure().iterdir()})
        hub.add_dataset(CHAT, {"train.jsonl": jsonl(CHATS).encode()})
        yield hub


def spec(**parts: Any) -> dict[str, Any]:
    """Return a spec that trains the tiny model for 20 steps; `parts` replace its top-level fields."""
    return {
        "baseModel": {"name": BASE},
        "dataset": {
            "source": {"configMapRef": {"name": "data", "key": "train.jsonl"}},
            "format": "PromptCompletion",
        },
        "lora": {"r": 8, "loraAlpha": 16},
        "training": {
            "maxSteps": 20,
            "perDeviceTrainBatchSize": 4,
            "learningRate": "1e-2",
            "maxLength": 64,
            "loggingSteps": 5,
        },
        "engine": {"type": "VLLM", "version": "0.32.0", "device": "cpu", "maxLoraRank": 16, "dtype": "float32"},
        "output": {"hub": {"repo": REPO}},
        **parts,
    }


@dataclass(frozen=True, kw_only=True)
class Ended:
    """How an attempt ended. `result` was read from the termination message, and was stdout's last line too."""

    exit_code: int
    result: Result
    termination_message: str
    log: str
    readings: Sequence[Mapping[str, Any]] = ()
    """The lines of JSON before it."""


@dataclass(kw_only=True)
class Trainer:
    """A folder for attempts against one Hub."""

    folder: Path
    hub: Hub
    environ: dict[str, str] = field(default_factory=dict)
    stderr: int = subprocess.PIPE
    """Where its attempts' words go; a terminal's descriptor makes them talk to a person."""

    def start(
        self,
        wanted: Mapping[str, Any],
        *,
        data: str | None = None,
        options: Sequence[str] = (),
        before: str = "",
        **environ: str,
    ) -> subprocess.Popen[str]:
        """Start an attempt on this spec; `data` is what the ConfigMap's key holds, `before` runs in its process."""
        (self.folder / "spec.json").write_text(json.dumps(wanted))
        (self.folder / "data").mkdir(exist_ok=True)
        (self.folder / "data" / "train.jsonl").write_text(jsonl(PROMPTS) if data is None else data)
        self._message.write_text("")
        binaries = engine.REPOSITORY / ".local/engine/bin"
        program = f"{before}\nimport sys\nfrom lora_trainer.__main__ import main\nsys.exit(main())"
        command = [
            *([str(binaries / "python"), "-c", program] if before else [str(binaries / "lora-train")]),
            *("--spec", str(self.folder / "spec.json")),
            *("--data", str(self.folder / "data")),
            *("--output", str(self.folder / "output")),
            *("--termination-message", str(self._message)),
            *options,
        ]
        return subprocess.Popen(  # the caller waits for it, or ends it
            command, env=self._environ(environ), stdout=subprocess.PIPE, stderr=self.stderr, text=True
        )

    def ended(self, process: subprocess.Popen[str]) -> Ended:
        """Wait for the attempt's end."""
        try:
            out, err = process.communicate(timeout=420)
        finally:
            process.kill()
        message = self._message.read_text()
        result = read_result(message)
        assert result is not None, f"no termination message; exit code {process.returncode}\n{err}"
        assert out.splitlines()[-1] == message
        readings = [json.loads(line) for line in out.splitlines()[:-1] if line.startswith('{"type":')]
        return Ended(
            exit_code=process.returncode, result=result, termination_message=message, log=err, readings=readings
        )

    def run(
        self, wanted: Mapping[str, Any], *, data: str | None = None, options: Sequence[str] = (), **environ: str
    ) -> Ended:
        """Run an attempt to its end."""
        return self.ended(self.start(wanted, data=data, options=options, **environ))

    @property
    def _message(self) -> Path:
        return self.folder / "termination-log"

    def _environ(self, more: Mapping[str, str]) -> dict[str, str]:
        return {
            **os.environ,
            "HF_ENDPOINT": self.hub.url,
            "HF_HUB_DISABLE_XET": "1",
            "HF_HOME": str(self.folder / "cache"),
            "HF_TOKEN": "",
            "LORA_OUTPUT_TOKEN": "hf_write",
            "LORA_TRAIN_HUB_PATIENCE_SECONDS": "60",
            "OMP_NUM_THREADS": "1",
            **self.environ,
            **more,
        }


@dataclass(frozen=True, kw_only=True)
class Reported:
    """One progress POST."""

    path: str
    authorization: str
    progress: Progress


@contextmanager
def progress_server() -> Iterator[tuple[str, list[Reported]]]:
    """Serve what the operator serves for progress, on loopback; yield its URL and what arrives."""
    arrived: list[Reported] = []
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(arrived.append))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/v1/progress/team-a/job", arrived
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def _handler(arrived: Callable[[Reported], None]) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            arrived(
                Reported(
                    path=self.path,
                    authorization=self.headers["Authorization"],
                    progress=Progress.model_validate_json(body),
                )
            )
            self.send_response(200)
            self.end_headers()

        def log_request(self, *_: object) -> None:
            return

    return Handler
