"""Where base and adapter come from: a directory, or `hf://<id>[@<revision>]` pinned to a commit before a byte is read.

huggingface_hub is imported only for the latter. Its environment holds: HF_ENDPOINT, HF_TOKEN, HF_HOME.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from lora_merger.checkpoint import CARD, Files, LocalFiles
from lora_merger.refusal import ExitCode, Refusal

SCHEME: Final = "hf://"
# Whatever is on the line: a card is a stranger's, and a pattern that trims would take hours over a line of spaces.
_LICENCE: Final = re.compile(r"^licen[cs]e:(.*)$", re.MULTILINE)
_CARD_LIMIT: Final = 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """A base or an adapter: where its files are read from, and what is known of where it comes from."""

    name: str
    """The Hub's id, or the directory as it was given."""
    files: Files
    revision: str | None = None
    licence: str | None = None
    gated: str | None = None
    """How access is granted: "auto" or "manual"; "no" where anybody may; None where that is not known."""
    sha256: Mapping[str, str] = field(default_factory=dict)
    """What the Hub says of its large files."""


def is_remote(reference: str) -> bool:
    """Tell whether a reference is the Hub's."""
    return reference.startswith(SCHEME)


def open_source(reference: str) -> Source:
    """Resolve a reference: to a directory, or to a commit of a repository, whose files are read by ranges."""
    if is_remote(reference):
        from lora_merger import hub  # noqa: PLC0415 - its libraries take more memory than a merge

        return hub.open_source(reference.removeprefix(SCHEME))
    folder = Path(reference)
    if not folder.is_dir():
        raise Refusal(ExitCode.NOT_FOUND, f"{reference} is no directory (a repository of the Hub is hf://<id>)")
    files = LocalFiles(folder)
    return Source(name=reference, files=files, licence=_licence(files), revision=None)


def local_copy(source: Source, names: Sequence[str], scratch: Path, *, own_files: bool) -> Path:
    """Return a directory with these files of the source; *own_files* where links will not do."""
    if isinstance(source.files, LocalFiles):
        return source.files.folder
    from lora_merger import hub  # noqa: PLC0415

    return hub.download(source, names, scratch if own_files else None)


def _licence(files: LocalFiles) -> str | None:
    """Read the licence from the front matter of the model card."""
    if CARD not in files.names():
        return None
    text = files.read(CARD, 0, _CARD_LIMIT).decode("utf-8", "replace")
    parts = text.split("---\n", 2)
    found = _LICENCE.search(parts[1]) if len(parts) == 3 and not parts[0].strip() else None
    return found[1].strip().strip("\"'") or None if found else None
