"""The Hugging Face Hub, or a mirror of its API: a commit, its files by ranges, and the download of what is needed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import httpx2  # the client's own HTTP library: its exceptions come through
from huggingface_hub import HfApi, HfFileSystem, snapshot_download
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from lora_merger.refusal import ExitCode, Refusal
from lora_merger.sources import Source

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class HubFiles:
    """A repository at a commit, read by ranges."""

    repo: str
    revision: str
    sizes: dict[str, int]

    def names(self) -> Sequence[str]:
        """Return the files at the top."""
        return sorted(name for name in self.sizes if "/" not in name)

    def size(self, name: str) -> int:
        """Return a file's size."""
        return self.sizes[name]

    def read(self, name: str, start: int, stop: int) -> bytes:
        """Return a part of a file."""

        path = f"{self.repo}@{self.revision}/{name}"
        return bytes(_asked(lambda: HfFileSystem().cat_file(path, start=start, end=stop), f"{self.repo}/{name}"))


def open_source(reference: str) -> Source:
    """Pin `<id>[@<revision>]` to a commit."""
    repo, _, revision = reference.partition("@")
    info = _asked(lambda: HfApi().model_info(repo, revision=revision or None, files_metadata=True), repo)
    siblings = info.siblings or []
    commit = info.sha or ""
    licence = info.card_data.get("license") if info.card_data is not None else None
    gated = None if info.gated is None else info.gated or "no"
    return Source(
        name=repo,
        files=HubFiles(repo=repo, revision=commit, sizes={file.rfilename: file.size or 0 for file in siblings}),
        revision=commit,
        licence=str(licence) if licence else None,
        gated=str(gated) if gated is not None else None,
        sha256={file.rfilename: file.lfs.sha256 for file in siblings if file.lfs is not None},
    )


def download(source: Source, names: Sequence[str], folder: Path | None) -> Path:
    """Bring files to this machine: into the Hub's cache, or as files of their own into *folder*."""
    return Path(
        _asked(
            lambda: snapshot_download(
                source.name, revision=source.revision, allow_patterns=list(names), local_dir=folder
            ),
            source.name,
        )
    )


def _asked(call: Callable[[], T], what: str) -> T:
    try:
        return call()
    except HFValidationError as error:
        raise Refusal(ExitCode.NOT_FOUND, f"hf://{what}: {error}") from error
    except GatedRepoError as error:
        raise Refusal(
            ExitCode.HUB_UNAUTHORIZED, f"hf://{what} is gated: ask for access on its page, and set HF_TOKEN"
        ) from error
    except RevisionNotFoundError as error:
        raise Refusal(ExitCode.NOT_FOUND, f"hf://{what}: no such revision") from error
    except RepositoryNotFoundError as error:
        raise Refusal(ExitCode.NOT_FOUND, f"hf://{what}: no such repository, or HF_TOKEN may not read it") from error
    except HfHubHTTPError as error:
        status = error.response.status_code
        code = ExitCode.HUB_UNAUTHORIZED if status in {401, 403} else ExitCode.HUB_UNAVAILABLE
        raise Refusal(code, f"hf://{what}: the Hub answers {status}") from error
    except (httpx2.HTTPError, LocalEntryNotFoundError) as error:
        # The text of the error may hold a signed address.
        raise Refusal(
            ExitCode.HUB_UNAVAILABLE, f"hf://{what}: the Hub does not answer ({type(error).__name__})"
        ) from error
