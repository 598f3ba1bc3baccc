"""What inspecting costs: hashing and checking in one pass, headers in milliseconds, an import that nobody notices.

The aims are the design's. `make bench`, not part of `make test`; the figures are printed.
"""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from lora_operator.adapter import CONFIG, WEIGHTS, EngineLimits, base_from_config, inspect, open_directory
from support import measuring
from support.adapters import BaseShape, make_adapter
from support.measuring import Spread

ROUNDS = 7
FULL = """
import json, sys, time
from lora_operator.adapter import EngineLimits, base_from_config, inspect, open_directory
base = base_from_config(json.load(open(sys.argv[2])))
before = time.process_time()
verdict = inspect(open_directory(sys.argv[1]), base, EngineLimits(max_lora_rank=64))
print(time.process_time() - before)
assert verdict.servable, verdict.message()
"""
TARGETS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
# Llama 3 8B: 32 layers of 7 modules, each with an A and a B: 448 tensors.
LLAMA = BaseShape(hidden=4096, inner=14336, layers=32, heads=32, kv_heads=8, head_dim=128, vocabulary=128_256)


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("base") / "config.json"
    path.write_text(json.dumps(LLAMA.config()))
    return path


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return an adapter of 200 MB."""
    folder = make_adapter(base=LLAMA, rank=38, targets=TARGETS, dtype="BF16").write(tmp_path_factory.mktemp("large"))
    assert 195e6 < (folder / WEIGHTS).stat().st_size < 205e6
    return folder


def tell(capsys: pytest.CaptureFixture[str], *lines: str) -> None:
    with capsys.disabled():
        print("", *lines, sep="\n  ")


def test_a_full_inspection_costs_little_more_than_the_hash(
    large: Path, config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ours, whole, theirs, peaks, bare = [], [], [], [], []
    files = [str(large / CONFIG), str(large / WEIGHTS)]
    measuring.run(["sha256sum", *files])  # warms the cache
    for _ in range(ROUNDS):
        theirs.append(measuring.run(["sha256sum", *files]).cpu_seconds)
        usage = measuring.python(FULL + measuring.PRINT_PEAK, str(large), str(config))
        seconds, peak = map(float, usage.output.split())
        ours.append(seconds)
        whole.append(usage.cpu_seconds)
        peaks.append(peak)
        bare.append(float(measuring.python(measuring.PRINT_PEAK).output))
    inspection, hashing = Spread(tuple(ours)), Spread(tuple(theirs))
    memory = Spread(tuple(peaks)).median - Spread(tuple(bare)).median
    tell(
        capsys,
        f"full inspection of 200 MB, CPU s: {inspection}",
        f"  the whole process:              {Spread(tuple(whole))}",
        f"sha256sum of the same files:      {hashing}",
        f"ratio {inspection.median / hashing.median:.2f}; peak memory over the bare interpreter's: {memory:.1f} MiB",
    )
    assert inspection.median <= 1.3 * hashing.median
    assert memory <= 64


def test_a_header_of_448_tensors_is_inspected_in_milliseconds(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = make_adapter(base=LLAMA, rank=1, targets=TARGETS, dtype="BF16").write(tmp_path / "a")
    base, engine = base_from_config(LLAMA.config()), EngineLimits(max_lora_rank=16, dtype="bfloat16", device="cuda")
    took = []
    for _ in range(60):
        before = time.process_time()
        verdict = inspect(open_directory(folder, level="header"), base, engine)
        took.append((time.process_time() - before) * 1000)
        assert verdict.servable, verdict.message()
    assert verdict.summary.layers == 32
    spread = Spread(tuple(took[10:]))
    tell(capsys, f"header inspection of 448 tensors, CPU ms: {spread}")
    assert spread.median <= 5


def test_importing_the_library_costs_little_more_than_numpy_and_pydantic(capsys: pytest.CaptureFixture[str]) -> None:
    ours, theirs = [], []
    for number in range(3 * ROUNDS + 1):
        library = measuring.python("import lora_operator.adapter").cpu_seconds
        both = measuring.python("import numpy, pydantic").cpu_seconds
        if number:  # the first writes bytecode
            ours.append(library)
            theirs.append(both)
    mine, known = Spread(tuple(ours)), Spread(tuple(theirs))
    tell(
        capsys,
        f"import lora_operator.adapter, CPU s: {mine}",
        f"import numpy, pydantic:              {known}",
        f"ratio {mine.median / known.median:.2f}",
    )
    assert mine.median <= 1.15 * known.median
