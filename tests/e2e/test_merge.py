"""lora-merge writes what PEFT's merge_and_unload saves, bit for bit; vLLM answers with it as with the adapter."""

from __future__ import annotations

import json
import os
import subprocess
import urllib.request
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from imagebuild import engine
from lora_merger.merging import MergeRequest, merge
from lora_merger.plan import Layout
from support import peft_cases, real_engine
from support.adapters import make_adapter
from support.checkpoints import read_tensors, values
from tinymodel import cached

pytestmark = pytest.mark.timeout(1200)
PROMPTS = ("def main", "import os", "class Tree:", "The quick brown fox", "return")


@pytest.fixture(scope="module")
def oracle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder in which PEFT has made and merged every case."""
    folder = tmp_path_factory.mktemp("peft")
    source = engine.REPOSITORY / "tests"
    command = engine.command(
        [str(engine.PYTHON), str(source / "support" / "peft_merging.py"), str(folder)], engine=engine.ensure()
    )
    done = subprocess.run(
        command,
        input=json.dumps(peft_cases.CASES),
        env={**os.environ, "HF_HUB_OFFLINE": "1", "LORA_CHECKOUT": str(engine.REPOSITORY)},
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return folder


@pytest.fixture(scope="module")
def adds_up_alike(oracle: Path) -> bool:
    """Tell whether numpy's BLAS adds up products in torch's order here: docs/decisions/0025."""
    found = {name: values(data) for name, data in read_tensors(oracle).items()}
    return bool(np.array_equal(found["left"] @ found["right"], found["product"]))


@pytest.mark.parametrize("case", peft_cases.CASES, ids=lambda case: case["name"])
def test_every_value_is_peft_s(case: dict[str, Any], oracle: Path, adds_up_alike: bool, tmp_path: Path) -> None:
    folder = oracle / case["name"]
    request = MergeRequest(
        base=str(folder / "base"), adapter=str(folder / "adapter"), out=tmp_path / "out", verify=True
    )
    merged = merge(replace(request, dtype=case.get("into")))
    assert merged.plan.merges
    ours, peft, base = (read_tensors(path) for path in (tmp_path / "out", folder / "merged", folder / "base"))
    assert {name: data[:2] for name, data in ours.items()} == {name: data[:2] for name, data in peft.items()}
    changed = {span.name for span in merged.plan.merges}
    assert all(ours[name][2] != base[name][2] for name in changed)
    differing = [name for name in ours if ours[name][2] != peft[name][2]]
    if adds_up_alike:
        assert differing == []
    halves = read_tensors(folder / "adapter")
    pairs = {pair.weight: pair for pair in merged.plan.pairs}
    for name in differing:
        pair = pairs[name]
        products = np.abs(values(halves[pair.b.name])) @ np.abs(values(halves[pair.a.name])) * abs(pair.scaling)
        if pair.layout is not Layout.LINEAR:
            products = products.T
        off = np.abs(values(ours[name]) - values(peft[name]))
        ulps = 4 if peft[name][0] == "F32" else 1
        assert np.all(off <= ulps * one_ulp(peft[name][0], np.abs(values(base[name])) + products))


def one_ulp(dtype: str, size: np.ndarray) -> np.ndarray:
    """Return an ulp at a size: of all that was added up, which may cancel to nearly 0."""
    return np.ldexp(1.0, np.frexp(size)[1] - {"F32": 24, "F16": 11, "BF16": 8}[dtype])


def test_vllm_answers_with_the_merged_model_as_with_the_adapter_on_its_base(tmp_path: Path) -> None:
    base = cached.ensure()
    targets = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
    adapter = make_adapter(targets=targets, config={"lora_alpha": 64}).write(tmp_path / "adapter")
    merge(MergeRequest(base=str(base), adapter=str(adapter), out=tmp_path / "merged"))
    for path in adapter.iterdir():
        path.chmod(0o644)
    with real_engine.running(tmp_path) as served:
        asked = {"lora_name": "tuned", "lora_path": str(adapter)}
        post(f"{served.url}/v1/load_lora_adapter", asked)
        plain, tuned = answers(served.url, "base"), answers(served.url, "tuned")
        served.kill()
        served.model = tmp_path / "merged"
        served.start()
        merged = answers(served.url, "base")
    assert tuned != plain
    assert merged == tuned


def answers(url: str, model: str) -> list[str]:
    """Return the greedy continuation of each prompt."""
    bodies = [{"model": model, "prompt": prompt, "max_tokens": 24, "temperature": 0} for prompt in PROMPTS]
    return [str(json.loads(post(f"{url}/v1/completions", body))["choices"][0]["text"]) for body in bodies]


def post(url: str, body: dict[str, object]) -> str:
    """Ask the engine."""
    request = urllib.request.Request(url, json.dumps(body).encode(), {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=240) as answer:
        return str(answer.read().decode())
