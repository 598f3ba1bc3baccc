"""A base that was fetched from the Hub is told by the Hub's own word, as long as nobody has changed it since."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

import pytest

from lora_merger.merging import MergeRequest, merge
from support.adapters import make_adapter
from support.checkpoints import files_of, vouch_for, write_base

COMMIT = "c" * 40


def told(tmp_path: Path, base: Path) -> dict[str, object]:
    """Merge, and return what the manifest says of the base."""
    make_adapter().write(tmp_path / "adapter")
    merge(MergeRequest(base=str(base), adapter=str(tmp_path / "adapter"), out=tmp_path / "out"))
    said: dict[str, object] = json.loads((tmp_path / "out" / "lora-merge.json").read_text())["base"]
    return said


def sources(said: dict[str, object]) -> dict[str, tuple[str, str]]:
    """Return digest and whose word it is."""
    files = said["files"]
    assert isinstance(files, dict)
    return {name: (file["sha256"], file["sha256From"]) for name, file in files.items()}


def cached(tmp_path: Path) -> Path:
    """Write a base as the Hub's cache keeps it: links to files that are named by their digests."""
    home = tmp_path / "models--acme--base"
    snapshot, blobs = home / "snapshots" / COMMIT, home / "blobs"
    for folder in (snapshot, blobs):
        folder.mkdir(parents=True)
    for name, data in files_of(write_base(tmp_path / "plain", shards=2)).items():
        blob = hashlib.sha256(data).hexdigest() if name.endswith(".safetensors") else name.encode().hex()[:40]
        (blobs / blob).write_bytes(data)
        (snapshot / name).symlink_to(f"../../blobs/{blob}")
    return snapshot


def local_dir(tmp_path: Path) -> Path:
    """Write a base as a download into a directory leaves it."""
    return vouch_for(write_base(tmp_path / "base", shards=2), COMMIT)


def test_the_hub_s_cache_names_repository_commit_and_digests(tmp_path: Path) -> None:
    base = cached(tmp_path)
    said = told(tmp_path, base)
    assert (said["repo"], said["revision"]) == ("acme/base", COMMIT)
    assert sources(said) == {path.name: (path.resolve().name, "hub") for path in sorted(base.glob("*.safetensors"))}


def test_a_download_into_a_directory_has_its_commit_and_digests_beside_it(tmp_path: Path) -> None:
    base = local_dir(tmp_path)
    said = told(tmp_path, base)
    assert (said["repo"], said["revision"]) == (None, COMMIT)
    assert {word for _, word in sources(said).values()} == {"hub"}


def test_a_file_that_was_changed_since_is_hashed(tmp_path: Path) -> None:
    base = local_dir(tmp_path)
    first, second = sorted(base.glob("*.safetensors"))
    later = first.stat().st_mtime_ns + 5_000_000_000
    data = bytearray(first.read_bytes())
    data[-1] ^= 1
    first.write_bytes(data)
    os.utime(first, ns=(later, later))
    said = told(tmp_path, base)
    assert said["revision"] is None
    assert sources(said) == {
        first.name: (hashlib.sha256(data).hexdigest(), "computed"),
        second.name: (hashlib.sha256(second.read_bytes()).hexdigest(), "hub"),
    }


@pytest.mark.parametrize(
    "note", ["", "nonsense\n", f"{COMMIT}\nnot a digest\n9999999999\n", f"{COMMIT}\n{'a' * 40}\n9\n"]
)
def test_a_note_that_says_nothing_is_no_word(note: str, tmp_path: Path) -> None:
    base = local_dir(tmp_path)
    for path in (base / ".cache" / "huggingface" / "download").iterdir():
        path.write_text(note)
    said = told(tmp_path, base)
    assert said["revision"] is None
    assert {word for _, word in sources(said).values()} == {"computed"}
