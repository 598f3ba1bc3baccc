"""lora-merge on `hf://` ids: pinned to commits, verified against the Hub's digests, rehearsed by ranges alone."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

import hubserver
from lora_merger.refusal import ExitCode
from support.adapters import make_adapter
from support.checkpoints import files_of, write_base
from support.operating import eventually

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
    command = [sys.executable, "-m", "lora_merger", *arguments]
    where = environment(hub, tmp_path, token=token)
    return subprocess.run(command, env=where, capture_output=True, text=True, timeout=120, check=False)


def environment(hub: hubserver.Hub, tmp_path: Path, *, token: str | None = None) -> dict[str, str]:
    """Return the environment of a client of this Hub alone."""
    return {
        **{key: value for key, value in os.environ.items() if not key.startswith("HF_")},
        "HF_ENDPOINT": hub.url,
        "HF_HOME": str(tmp_path / "hf"),
        "HF_HUB_DISABLE_XET": "1",
        "HF_TOKEN": token or TOKEN,
    }


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
    assert "model-00001-of-00002.safetensors of the base is not what the Hub says it is" in done.stderr
    assert not (tmp_path / "out").exists()
    hub.untamper()
    spoilt = re.search(r"remove (\S+), and try again", done.stderr)
    assert spoilt is not None
    Path(spoilt[1]).unlink()
    done = run(hub, tmp_path, f"hf://{BASE}", f"hf://{ADAPTER}", str(tmp_path / "out"))
    assert done.returncode == ExitCode.OK, done.stderr


def test_an_adapter_that_can_not_be_merged_is_not_fetched(hub: hubserver.Hub, commits: object, tmp_path: Path) -> None:
    hub.add_model("acme/dora", make_adapter(config={"use_dora": True}).files)
    done = run(hub, tmp_path, f"hf://{BASE}", "hf://acme/dora", str(tmp_path / "out"))
    assert done.returncode == ExitCode.NOT_MERGEABLE, done.stderr
    assert "DoRA" in done.stderr
    asked = [record for record in hub.requests if record.method == "GET" and record.path.endswith(".safetensors")]
    assert asked
    assert all(record.range is not None for record in asked)


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, ExitCode.INTERRUPTED), (signal.SIGTERM, ExitCode.TERMINATED)]
)
def test_a_signal_ends_a_download_at_once(
    number: signal.Signals, code: ExitCode, hub: hubserver.Hub, commits: object, tmp_path: Path
) -> None:
    # Never read by ranges: whoever asks for it is downloading.
    hub.fault("resolve/.*/tokenizer.json", times=-1, delay_seconds=600)
    words = [sys.executable, "-m", "lora_merger", f"hf://{BASE}", f"hf://{ADAPTER}", str(tmp_path / "out")]
    with subprocess.Popen(words, env=environment(hub, tmp_path), stderr=subprocess.PIPE, text=True) as merging:
        eventually(
            lambda: any(record.path.endswith("/tokenizer.json") for record in hub.requests) or None, "a download"
        )
        merging.send_signal(number)
        _, told = merging.communicate(timeout=120)
    assert merging.returncode == code, told
    assert "run it again to go on" in told


# A disk with a hundred free blocks.
FULL = """
import os, sys
from lora_merger.__main__ import main
real = os.statvfs("/")
os.statvfs = lambda _: os.statvfs_result((real.f_bsize, 4096, 100, 100, 100, *tuple(real)[5:]))
sys.exit(main())
"""


def test_room_is_looked_for_before_a_base_is_fetched(hub: hubserver.Hub, commits: object, tmp_path: Path) -> None:
    make_adapter().write(tmp_path / "local")
    words = [sys.executable, "-c", FULL, f"hf://{BASE}", str(tmp_path / "local"), str(tmp_path / "out")]
    where = environment(hub, tmp_path)
    done = subprocess.run(words, env=where, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == ExitCode.NO_SPACE, done.stderr
    assert "409,600 bytes free" in done.stderr
    assert all(record.range is not None for record in hub.requests if record.path.endswith(".safetensors"))
