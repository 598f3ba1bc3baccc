"""What the Hub said of files that were fetched from it before, as its client keeps it beside them.

Its cache names each large file by its sha256; `hf download --local-dir` writes the sha256 and the commit into
`.cache/huggingface/download/<name>.metadata`, with the time. A file that was changed since has nobody's word.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

_SHA256: Final = re.compile(r"[0-9a-f]{64}")
_COMMIT: Final = re.compile(r"[0-9a-f]{40}")
_CACHE_FOLDER: Final = "models--"
# As huggingface_hub: a file system may keep whole seconds.
_SLACK_SECONDS: Final = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Word:
    """The Hub's word for a directory: whose it is, at which commit, and the sha256 of the files that it vouches for."""

    repo: str | None = None
    revision: str | None = None
    sha256: Mapping[str, str] = field(default_factory=dict)


def word_of_the_hub(folder: Path, names: Iterable[str]) -> Word:
    """Return what the Hub said of these files of a directory."""
    names = tuple(names)
    return _of_cache(folder.resolve(), names) or _of_local_dir(folder, names)


def _of_cache(folder: Path, names: tuple[str, ...]) -> Word | None:
    """Read `models--<org>--<name>/snapshots/<commit>/`, whose files are links to `../../blobs/<sha256>`."""
    home = folder.parent.parent
    if folder.parent.name != "snapshots" or not home.name.startswith(_CACHE_FOLDER):
        return None
    if _COMMIT.fullmatch(folder.name) is None:
        return None
    sha256 = {}
    for name in names:
        blob = (folder / name).resolve()
        if blob.parent == home / "blobs" and _SHA256.fullmatch(blob.name):
            sha256[name] = blob.name
    repo = home.name.removeprefix(_CACHE_FOLDER).replace("--", "/")
    return Word(repo=repo, revision=folder.name, sha256=sha256)


def _of_local_dir(folder: Path, names: tuple[str, ...]) -> Word:
    sha256, commits = {}, set()
    for name in names:
        note = _note(folder / ".cache" / "huggingface" / "download" / f"{name}.metadata")
        commit, etag, written = note or (None, "", 0.0)
        unchanged = (folder / name).stat().st_mtime - _SLACK_SECONDS <= written
        if commit is not None and unchanged and _SHA256.fullmatch(etag):
            sha256[name] = etag
            commits.add(commit)
        else:
            commits.add("")
    revision = commits.pop() if len(commits) == 1 else ""
    return Word(revision=revision or None, sha256=sha256)


def _note(path: Path) -> tuple[str, str, float] | None:
    try:
        commit, etag, written = path.read_text().splitlines()[:3]
        return (commit, etag, float(written)) if _COMMIT.fullmatch(commit) else None
    except (OSError, ValueError):
        return None
