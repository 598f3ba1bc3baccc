"""lora-train beside a bare TRL script: the same recipe and seed, in pairs, the first of a pair in turn.

Prints the medians, of the clock's seconds and of the processor's, which a busy machine moves less; fails where
lora-train makes another adapter, or costs visibly more.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import statistics
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from imagebuild import engine, wrappers
from support import real_trainer
from tinymodel import cached

PAIRS: Final = int(os.environ.get("PAIRS", "5"))
STEPS: Final = 200
BINARIES: Final = engine.REPOSITORY / ".local/engine/bin"
BARE: Final = """
import json, sys
from pathlib import Path
from datasets import Dataset
from peft import LoraConfig
from transformers import TrainerCallback
from trl import SFTConfig, SFTTrainer
base, data, out, steps = sys.argv[1:]
rows = [json.loads(line) for line in Path(data).read_text().splitlines()]
class Told(TrainerCallback):
    def on_log(self, args, state, control, logs, **_):
        print(json.dumps({"step": state.global_step, **logs}), flush=True)
args = SFTConfig(
    output_dir=out, max_steps=int(steps), per_device_train_batch_size=4, learning_rate=1e-2, max_length=64,
    logging_steps=1, seed=42, lr_scheduler_type="linear", weight_decay=0.0, model_init_kwargs={"dtype": "float32"},
    bf16=False, use_cpu=True, dataloader_pin_memory=False, save_strategy="no", report_to="none", disable_tqdm=True,
    gradient_checkpointing=True,
)
lora = LoraConfig(task_type="CAUSAL_LM", r=8, lora_alpha=16, lora_dropout=0.0, target_modules="all-linear")
trainer = SFTTrainer(
    model=base, args=args, train_dataset=Dataset.from_list(rows), peft_config=lora, callbacks=[Told()]
)
trainer.train()
trainer.model.save_pretrained(out + "/adapter", save_embedding_layers=False)
"""


@dataclass(frozen=True, kw_only=True)
class Measured:
    """One run."""

    first_step_seconds: float
    first_step_cpu_seconds: float
    step_seconds: float
    step_cpu_seconds: float
    tokens_per_second: float
    peak_bytes: float
    cpu_seconds: float
    adapter: str


RATIOS: Final = tuple(field.name for field in dataclasses.fields(Measured) if field.name != "adapter")


@pytest.mark.timeout(1200)
def test_lora_train_costs_no_more_than_a_bare_script(tmp_path: Path) -> None:
    wrappers.write()
    base, data = cached.ensure(), tmp_path / "train.jsonl"
    data.write_text(real_trainer.jsonl(real_trainer.PROMPTS))
    (tmp_path / "spec.yaml").write_text(yaml.safe_dump(recipe(base, data)))
    train = [BINARIES / "lora-train", "--spec", tmp_path / "spec.yaml", "--no-publish", "--output"]
    pairs = []
    for number in range(-1, PAIRS):  # the first is for the page cache, and is not counted
        ours_first = number % 2 == 0
        outs = {name: tmp_path / f"{name}-{number}" for name in (("ours", "bare") if ours_first else ("bare", "ours"))}
        commands = {
            "bare": [BINARIES / "python", "-c", BARE, base, data, outs["bare"], STEPS],
            "ours": [*train, outs["ours"]],
        }
        measured = {name: run(commands[name], out) for name, out in outs.items()}
        assert measured["ours"].adapter == measured["bare"].adapter, "another adapter"
        if number >= 0:
            pairs.append((measured["bare"], measured["ours"]))
    ratios = {
        name: statistics.median(getattr(ours, name) / getattr(bare, name) for bare, ours in pairs) for name in RATIOS
    }
    for name, ratio in ratios.items():
        each = ", ".join(f"{getattr(ours, name) / getattr(bare, name):.3f}" for bare, ours in pairs)
        median = statistics.median(getattr(bare, name) for bare, _ in pairs)
        print(f"{name}: bare {median:.4g}, lora-train {ratio:.3f} times that ({each})")
    # The aims are 1.03, 1.00, 0.98 and 1.02; what fails is beyond what a busy machine makes of them.
    assert ratios["first_step_seconds"] < 1.3
    assert ratios["step_seconds"] < 1.15
    assert ratios["tokens_per_second"] > 0.85
    assert ratios["peak_bytes"] < 1.1


def recipe(base: Path, data: Path) -> dict[str, Any]:
    """Return the spec that says what BARE does."""
    return {
        "baseModel": {"name": "acme/tiny", "path": str(base)},
        "dataset": {"source": {"path": str(data)}, "format": "PromptCompletion"},
        "lora": {"r": 8, "loraAlpha": 16},
        "training": {
            "maxSteps": STEPS,
            "perDeviceTrainBatchSize": 4,
            "learningRate": "1e-2",
            "maxLength": 64,
            "loggingSteps": 1,
        },
    }


def run(command: list[Any], out: Path) -> Measured:
    """Run a program to its end, and read from its lines when steps came."""
    environ = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "TRANSFORMERS_VERBOSITY": "error"}
    environ.pop("PYTHONDONTWRITEBYTECODE", None)  # our packages lie compiled in the image, as the libraries do here
    words, began = list(map(str, command)), time.monotonic()
    with (
        (out.parent / "log").open("w") as log,
        subprocess.Popen(words, env=environ, stdout=subprocess.PIPE, stderr=log, text=True) as process,
    ):
        assert process.stdout is not None
        clock: dict[int, float] = {}
        processor: dict[int, float] = {}
        tokens = 0.0
        for line in process.stdout:
            reading = json.loads(line) if line.startswith('{"') else {}
            if "step" in reading and "loss" in reading:
                clock[reading["step"]] = time.monotonic() - began
                processor[reading["step"]] = used(process.pid)
            tokens = float(reading.get("num_tokens") or (reading.get("metrics") or {}).get("num_tokens") or tokens)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0, (out.parent / "log").read_text()
    weights = (out / "adapter" / "adapter_model.safetensors").read_bytes()
    return Measured(
        first_step_seconds=clock[1],
        first_step_cpu_seconds=processor[1],
        step_seconds=(clock[STEPS] - clock[1]) / (STEPS - 1),
        step_cpu_seconds=(processor[STEPS] - processor[1]) / (STEPS - 1),
        tokens_per_second=tokens / (clock[STEPS] - clock[1]),
        peak_bytes=usage.ru_maxrss * 1024,
        cpu_seconds=usage.ru_utime + usage.ru_stime,
        adapter=hashlib.sha256(weights).hexdigest(),
    )


def used(pid: int) -> float:
    """Return the processor's seconds that a process, and what it has waited for, took so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")
