"""What a merge costs beside `cp -r` and beside PEFT, cold and forced to disk; and twenty kills at random moments.

The table lands in .local/bench/; docs/merging.md has one of them. Run one size with `-k "0.5"`.
"""

from __future__ import annotations

import functools
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

from imagebuild import engine
from lora_operator.adapter import parse_header
from support import big_models
from support.adapters import make_adapter
from support.checkpoints import vouch_for
from support.command_costs import Cost, measure, spread

pytestmark = pytest.mark.timeout(3600)
RUNS = 3
MIB = 1024 * 1024
ALL_LINEAR = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
ADAPTERS = {"all linear": ALL_LINEAR, "q and v": ("q_proj", "v_proj")}
PEFT = """
import os, sys, torch, transformers
from peft import PeftModel
base = transformers.AutoModelForCausalLM.from_pretrained(sys.argv[1], dtype=torch.bfloat16)
PeftModel.from_pretrained(base, sys.argv[2]).merge_and_unload().save_pretrained(sys.argv[3], max_shard_size="500MB")
os.sync()
"""


@pytest.mark.parametrize("name", big_models.SHAPES)
def test_a_merge_beside_a_copy_and_beside_peft(name: str, tmp_path: Path) -> None:
    shape = big_models.SHAPES[name]
    base, out = vouch_for(big_models.write(tmp_path / "base", shape), "c" * 40), tmp_path / "out"
    unknown = _without_word(base, tmp_path / "unknown")
    adapters = {
        kind: make_adapter(base=shape, rank=16, targets=targets, seed=1).write(tmp_path / kind)
        for kind, targets in ADAPTERS.items()
    }
    baseline = _empty_interpreter()
    peft = engine.command([str(engine.PYTHON), "-c", PEFT], engine=engine.ensure())
    merged = functools.partial(measure, env=_with_bytecode(tmp_path / "bytecode"))
    contenders: dict[str, Callable[[], Cost]] = {
        "cp -r, sync": lambda: measure(["sh", "-c", 'cp -r "$0" "$1" && sync -f "$1"', base, out]),
        **{
            f"lora-merge, {kind}": functools.partial(merged, _merge(base, path, out)) for kind, path in adapters.items()
        },
        "lora-merge, all linear, base hashed": lambda: merged(_merge(unknown, adapters["all linear"], out)),
        "PEFT, all linear": lambda: measure(
            [*peft, base, adapters["all linear"], out],
            env={"HF_HUB_OFFLINE": "1", "LORA_CHECKOUT": str(engine.REPOSITORY)},
        ),
    }
    costs: dict[str, list[Cost]] = {contender: [] for contender in contenders}
    compared = {"lora-merge, all linear": tmp_path / "ours", "PEFT, all linear": tmp_path / "theirs"}
    differing = 0
    for _ in range(RUNS):
        # In another order each time: what a run costs depends on what the one before has left behind.
        for contender in random.sample(list(contenders), len(contenders)):
            _forget(base)
            costs[contender].append(contenders[contender]())
            if contender in compared:
                out.rename(compared[contender])
            else:
                shutil.rmtree(out)
        differing += _differing(*compared.values())
        for folder in compared.values():
            shutil.rmtree(folder)
    _write_table(name, costs, baseline, differing)
    assert differing == 0
    for kind in ADAPTERS:
        for cost in costs[f"lora-merge, {kind}"]:
            assert cost.peak - baseline <= 40 * MIB


def _without_word(base: Path, folder: Path) -> Path:
    """Return the same files in a directory that nobody vouches for."""
    folder.mkdir()
    for path in base.iterdir():
        if path.is_file():
            (folder / path.name).hardlink_to(path)
    return folder


def test_twenty_kills_at_random_moments_and_the_merge_is_the_same(tmp_path: Path) -> None:
    shape = big_models.SHAPES["0.5 GB"]
    base = big_models.write(tmp_path / "base", shape)
    adapter = make_adapter(base=shape, rank=16, targets=ALL_LINEAR, seed=1).write(tmp_path / "adapter")
    started = time.monotonic()
    subprocess.run(_merge(base, adapter, tmp_path / "undisturbed"), check=True)
    takes = time.monotonic() - started
    seed = random.SystemRandom().randrange(2**32)
    print(f"seed {seed}")
    moments, kills = random.Random(seed), 0  # noqa: S311 - to be repeated, and no secret
    while kills < 20:
        with subprocess.Popen(_merge(base, adapter, tmp_path / "out")) as merging:
            try:
                code = merging.wait(timeout=moments.uniform(0.1, takes))
            except subprocess.TimeoutExpired:
                merging.kill()
                code = merging.wait()  # 0, where it was done between the two
        if code == -signal.SIGKILL:
            kills += 1
            continue
        assert code == 0
        assert _differing(tmp_path / "undisturbed", tmp_path / "out") == 0
        shutil.rmtree(tmp_path / "out")
    if not (tmp_path / "out").exists():
        subprocess.run(_merge(base, adapter, tmp_path / "out"), check=True)
    for path in (tmp_path / "undisturbed").iterdir():
        assert path.read_bytes() == (tmp_path / "out" / path.name).read_bytes()


def _merge(base: Path, adapter: Path, out: Path) -> list[str | Path]:
    return [sys.executable, "-m", "lora_merger", base, adapter, out]


def _with_bytecode(folder: Path) -> dict[str, str]:
    """Return an environment in which the modules are compiled, as wherever a package is installed, and PEFT's here."""
    environment = {"PYTHONDONTWRITEBYTECODE": "", "PYTHONPYCACHEPREFIX": str(folder)}
    measure([sys.executable, "-m", "lora_merger", "--help"], env=environment)
    return environment


def _empty_interpreter() -> int:
    """Return the peak of a Python that does nothing, by its own account."""
    tell = "print([line.split()[1] for line in open('/proc/self/status') if line.startswith('VmHWM')][0])"
    return int(subprocess.run([sys.executable, "-c", tell], capture_output=True, check=True).stdout) * 1024


def _forget(folder: Path) -> None:
    """Let the page cache forget a directory's files, and nobody else's."""
    os.sync()
    for path in filter(Path.is_file, folder.iterdir()):
        with path.open("rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def _differing(ours: Path, theirs: Path) -> int:
    """Return how many values of two models in bfloat16 are not the same."""
    left, right = _tensors(ours), _tensors(theirs)
    assert left.keys() == right.keys()
    return sum(int(np.count_nonzero(left[name] != right[name])) for name in left)


def _tensors(folder: Path) -> dict[str, np.ndarray]:
    found = {}
    for path in folder.glob("*.safetensors"):
        data = np.memmap(path, np.uint8, "r")
        header = parse_header(data[: 4 * MIB].tobytes(), path.stat().st_size)
        for name, tensor in header.tensors.items():
            start = header.data_start
            found[name] = data[start + tensor.begin : start + tensor.end].view("<u2")
    return found


def _write_table(name: str, costs: dict[str, list[Cost]], baseline: int, differing: int) -> None:
    folder = engine.REPOSITORY / ".local" / "bench"
    folder.mkdir(parents=True, exist_ok=True)
    told = [
        f"{name}, {RUNS} runs each, {datetime.now(UTC):%Y-%m-%d}, {len(os.sched_getaffinity(0))} cores",
        f"load {os.getloadavg()[1]:.1f}; an empty interpreter peaks at {baseline / MIB:.0f} MiB",
        f"{differing} values differ from PEFT's",
    ]
    rows = [
        "; ".join(told),
        "",
        "| | wall, s | CPU, s | peak, MiB |",
        "|---|---|---|---|",
        *(
            f"| {contender} | {spread(runs, 'wall')} | {spread(runs, 'cpu')} | {spread(runs, 'peak')} |"
            for contender, runs in costs.items()
        ),
    ]
    (folder / f"merging-{name.replace(' ', '-')}.md").write_text("\n".join(rows) + "\n")
    print("\n".join(["", *rows]))
