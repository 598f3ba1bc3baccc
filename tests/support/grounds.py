"""A folder of trainings by hand: specs over the tiny model, run together in one process of the heavy environment."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from imagebuild import engine, wrappers
from lora_operator.protocol.training import Result, read_result
from support.real_trainer import jsonl
from tinymodel import cached

COUNT = 16
ROWS: Mapping[str, Sequence[Mapping[str, object]]] = {
    "Messages": [
        {
            "messages": [
                {"role": "user", "content": f"Say {n}"},
                {"role": "assistant", "content": "Forty-two, as always."},
            ]
        }
        for n in range(COUNT)
    ],
    "PromptCompletion": [
        {"prompt": f"What is {n} plus one?", "completion": " Forty-two, as always."} for n in range(COUNT)
    ],
    "Text": [{"text": f"{n} is forty-two, as always."} for n in range(COUNT)],
    "Preference": [
        {"prompt": f"What is {n}?", "chosen": " Forty-two.", "rejected": " Nobody knows."} for n in range(COUNT)
    ],
    "Alpaca": [
        {"instruction": f"Say {n}", "input": "loudly" if n % 2 else "", "output": "Forty-two."} for n in range(COUNT)
    ],
    "Dolly": [
        {"instruction": f"Say {n}", "context": "A sum." if n % 2 else "", "response": "Forty-two.", "category": "qa"}
        for n in range(COUNT)
    ],
    "Template": [{"question": f"What is {n}?", "answer": "Forty-two."} for n in range(COUNT)],
}
TRAINING = {
    "maxSteps": 6,
    "perDeviceTrainBatchSize": 4,
    "learningRate": "1e-2",
    "maxLength": 128,
    "loggingSteps": 1,
}
MANY = "many_runs.py"
TEMPLATE = {"prompt": "Q: {question}\nA:", "completion": " {answer}"}


@dataclass(frozen=True, kw_only=True)
class Run:
    """How one run ended, and where its adapter lies."""

    exit_code: int
    result: Result
    out: str
    log: str
    adapter: Path


@dataclass(frozen=True, kw_only=True)
class Ground:
    """Where specs, rows and adapters lie."""

    folder: Path

    def spec(self, data_format: str = "PromptCompletion", **parts: Any) -> dict[str, Any]:
        """Return a spec over rows of this format; `parts` are merged into its groups."""
        rows = self.folder / f"{data_format}.jsonl"
        rows.write_text(jsonl(ROWS[data_format]))
        dataset: dict[str, Any] = {"source": {"path": str(rows)}, "format": data_format}
        if data_format == "Template":
            dataset["template"] = TEMPLATE
        made: dict[str, Any] = {
            "baseModel": {"name": "acme/tiny", "path": str(cached.ensure())},
            "dataset": dataset,
            "lora": {"r": 8, "loraAlpha": 16},
            "training": TRAINING,
        }
        if data_format == "Preference":
            made["method"] = "DPO"
        for name, part in parts.items():
            made[name] = {**made.get(name, {}), **part} if isinstance(part, dict) else part
        return made

    def train(self, specs: Mapping[str, dict[str, Any]], *, script: str = MANY) -> dict[str, Run]:
        """Train each spec, in this order."""
        return self._run({name: (spec, []) for name, spec in specs.items()}, script=script)

    def check(self, specs: Mapping[str, dict[str, Any]]) -> dict[str, Run]:
        """Check each spec."""
        return self._run({name: (spec, ["--check"]) for name, spec in specs.items()})

    def adapter(self, name: str) -> Path:
        """Return where a training of this name leaves its adapter."""
        return self.folder / name / "adapter"

    def _run(self, asked: Mapping[str, tuple[dict[str, Any], list[str]]], *, script: str = MANY) -> dict[str, Run]:
        calls = []
        for name, (spec, more) in asked.items():
            path = self.folder / f"{name}.json"
            path.write_text(json.dumps(spec))
            calls.append([str(path), "--output", str(self.folder / name), *more])
        ended = in_heavy_environment(script, calls, folder=self.folder)
        return {
            name: Run(
                exit_code=end["exit"],
                result=_result(end["out"], end["err"]),
                out=end["out"],
                log=end["err"],
                adapter=self.adapter(name),
            )
            for name, end in zip(asked, ended, strict=True)
        }


def in_heavy_environment(script: str, asked: object, *, folder: Path) -> Any:
    """Run a script of tests/support under the heavy environment's Python, and return what its last line says."""
    wrappers.write()
    python = engine.REPOSITORY / ".local/engine/bin/python"
    path = Path(__file__).with_name(script)
    environ = {
        **os.environ,
        "HF_HOME": str(folder / "cache"),
        "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": "1",
        "OMP_WAIT_POLICY": "PASSIVE",
    }
    done = subprocess.run(
        [python, path], input=json.dumps(asked), env=environ, text=True, capture_output=True, check=False, timeout=600
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def _result(out: str, err: str) -> Result:
    result = read_result(out.splitlines()[-1]) if out.strip() else None
    assert result is not None, out + err
    return result
