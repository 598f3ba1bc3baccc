"""lora-merge on `hf://` ids: pinned to commits, verified against the Hub's digests, rehearsed by ranges alone."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

import hubserver
from lora_merger.refusal import ExitCode
from support.adapters import make_adapter
from support.checkpoints import files_of, write_base

BASE, ADAPTER = "acme/base", "acme/support-lora"
TOKEN = "hf_write"


@pytest.fixture
def commits(hub: hubserver.Hub, tmp_path: Path) -> Mapping[str, str]:
    """Put a base of two files and a private adapter on the Hub; return their commits."""
    base = files_of(write_base(tmp_path / "base", dtype="BF16", shards=2))
    adapter = make_adapter().write(tmp_path / "adapter")
    return {
        BASE: hub.add_model(BASE, base),
        ADAPTER: hub.add_model(ADAPTER, files_of(adapter), private=True),
    }


def run(
    hub: hubserver.Hub, tmp_path: Path, *arguments: str, token: str | None = None
) -> subprocess.CompletedProcess[str]:
    """Merge with a cache of its own."""
    environment = {
        **{key: value for key, value in os.environ.items() if not key.startswith("HF_")},
        "HF_ENDPOINT": hub.url,
        "HF_HOME": str(tmp_path / "hf"),
        "HF_HUB_DISABLE_XET": "1",
        "HF_TOKEN": token or TOKEN,
    }
    command = [sys.executable, "-m", "lora_merger", *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)


def test_a_merge_from_the_hub_is_the_merge_of_the_files_and_tells_the_commits(
    hub: hubserver.Hub, commits: Mapping[str, str], tmp_path: Path
) -> None:
    remote = run(hub, tmp_path, f"hf://{BASE}", f"hf://{ADAPTER}@main", str(tmp_path / "remote"))
    assert remote.returncode == ExitCode.OK, remote.stderr
    local = run(hub, tmp_path, *(str(tmp_path / name) for name in ("base", "adapter", "local")))
    assert local.returncode == ExitCode.OK, local.stderr
    ours, theirs = files_of(tmp_path / "remote"), files_of(tmp_path / "local")
    told = json.loads(ours.pop("lora-merge.json"))
    card = ours.pop("README.md").decode()
    assert ours == {name: data for name, data in theirs.items() if name not in ("lora-merge.json", "README.md")}
    assert (told["base"]["repo"], told["base"]["revision"]) == (BASE, commits[BASE])
    assert (told["adapter"]["repo"], told["adapter"]["revision"]) == (ADAPTER, commits[ADAPTER])
    assert f"{ADAPTER} at `{commits[ADAPTER]}`" in card
    assert f'base_model: ["{BASE}", "{ADAPTER}"]' in card
    assert "hf_write" not in remote.stderr + remote.stdout + card


def test_a_rehearsal_downloads_no_weights_of_the_base(
    hub: hubserver.Hub, commits: Mapping[str, str], tmp_path: Path
) -> None:
    done = run(hub, tmp_path, f"hf://{BASE}", f"hf://{ADAPTER}", str(tmp_path / "out"), "--dry-run")
    assert done.returncode == ExitCode.OK, done.stderr
    assert f"hf://{BASE}@{commits[BASE]}: 2 weights files" in done.stdout
    assert not (tmp_path / "hf" / "hub").exists() or not list((tmp_path / "hf" / "hub").rglob("*.safetensors"))


@pytest.mark.parametrize(
    ("base", "adapter", "token", "code", "words"),
    [
        (f"hf://{BASE}", "hf://acme/nothing", "hf_write", ExitCode.NOT_FOUND, "hf://acme/nothing: no such repository"),
        (f"hf://{BASE}@nothing", f"hf://{ADAPTER}", "hf_write", ExitCode.NOT_FOUND, "no such revision"),
        (f"hf://{BASE}", f"hf://{ADAPTER}", "hf_wrong", ExitCode.HUB_UNAUTHORIZED, "the Hub answers 401"),
        ("hf://not an id", f"hf://{ADAPTER}", "hf_write", ExitCode.NOT_FOUND, "hf://not an id"),
    ],
)
def test_a_refusal_of_the_hub_is_told(
    base: str, adapter: str, token: str, code: ExitCode, words: str, hub: hubserver.Hub, commits: object, tmp_path: Path
) -> None:
    done = run(hub, tmp_path, base, adapter, str(tmp_path / "out"), token=token)
    assert done.returncode == code, done.stderr
    assert words in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "out").exists()


def test_an_adapter_whose_bytes_are_not_the_hub_s_is_refused(
    hub: hubserver.Hub, commits: object, tmp_path: Path
) -> None:
    hub.tamper(ADAPTER, "adapter_model.safetensors")
    done = run(hub, tmp_path, f"hf://{BASE}", f"hf://{ADAPTER}", str(tmp_path / "out"))
    assert done.returncode == ExitCode.NOT_MERGEABLE, done.stderr
    assert "DigestMismatch" in done.stderr


def test_a_base_whose_bytes_are_not_the_hub_s_is_refused(hub: hubserver.Hub, commits: object, tmp_path: Path) -> None:
    hub.tamper(BASE, "model-00001-of-00002.safetensors")
    done = run(hub, tmp_path, f"hf://{BASE}", f"hf://{ADAPTER}", str(tmp_path / "out"))
    assert done.returncode == ExitCode.NOT_MERGEABLE, done.stderr
    assert "model-00001-of-00002.safetensors" in done.stderr
    assert not (tmp_path / "out").exists()
