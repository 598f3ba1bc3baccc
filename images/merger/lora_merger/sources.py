"""Opens what base and adapter come from: a directory, or `hf://<id>[@<revision>]` at a commit, pinned before all else.

huggingface_hub is imported only for the latter. Its environment holds: HF_ENDPOINT, HF_TOKEN, HF_HOME.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

from lora_merger import vouching
from lora_merger.checkpoint import CARD
from lora_merger.files import LocalFiles, Source
from lora_merger.refusal import ExitCode, Refusal
from lora_operator.clients.hub_reference import is_reference, parse_reference

# Whatever is on the line: a card is a stranger's, and a pattern that trims would take hours over a line of spaces.
_LICENCE: Final = re.compile(r"^licen[cs]e:(.*)$", re.MULTILINE)
_CARD_LIMIT: Final = 1024 * 1024


def open_source(reference: str) -> Source:
    """Resolve a reference: to a directory, or to a commit of a repository, whose files are read by ranges."""
    if is_reference(reference):
        from lora_merger import hub  # noqa: PLC0415 - its libraries take more memory than a merge

        try:
            place = parse_reference(reference)
        except ValueError as error:
            raise Refusal(ExitCode.NOT_FOUND, f"{reference}: {error}") from error
        return hub.open_source(place)
    folder = Path(reference)
    if not reference or not folder.is_dir():
        raise Refusal(
            ExitCode.NOT_FOUND, f"{reference or 'an empty word'} is no directory (a repository of the Hub is hf://<id>)"
        )
    files = LocalFiles(folder)
    word = vouching.word_of_the_hub(folder, [name for name in files.names() if name.endswith(".safetensors")])
    return Source(
        name=reference,
        files=files,
        repo=word.repo,
        revision=word.revision,
        licence=_licence(files),
        sha256=word.sha256,
    )


def _licence(files: LocalFiles) -> str | None:
    """Read the licence from the front matter of the model card."""
    if CARD not in files.names():
        return None
    text = files.read(CARD, 0, _CARD_LIMIT).decode("utf-8", "replace")
    parts = text.split("---\n", 2)
    found = _LICENCE.search(parts[1]) if len(parts) == 3 and not parts[0].strip() else None
    return found[1].strip().strip("\"'") or None if found else None
