"""The Hugging Face Hub, or a mirror of its API: a commit, its files by ranges, and the download of what is needed.

The download is a process of its own (`python -m lora_merger.hub`), which a signal ends at once: inside the client, in
its threads, nothing can be told to stop.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeVar

import httpx2  # the client's own HTTP library: its exceptions come through
from huggingface_hub import HfApi, HfFileSystem, snapshot_download, try_to_load_from_cache
from huggingface_hub.constants import HF_HUB_CACHE
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from lora_merger.files import Source
from lora_merger.refusal import ExitCode, Refusal, unwritable
from lora_merger.stopping import Stop
from lora_operator.clients.hub_reference import HubRepo

T = TypeVar("T")
# How often a download is looked at; a signal is heard within this.
_LOOK_SECONDS: Final = 0.2


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


def open_source(place: HubRepo) -> Source:
    """Pin a revision to a commit."""
    info = _asked(lambda: HfApi().model_info(place.repo, revision=place.revision, files_metadata=True), place.repo)
    siblings = info.siblings or []
    commit = info.sha or ""
    licence = info.card_data.get("license") if info.card_data is not None else None
    gated = None if info.gated is None else info.gated or "no"
    return Source(
        name=place.repo,
        repo=place.repo,
        files=HubFiles(repo=place.repo, revision=commit, sizes={file.rfilename: file.size or 0 for file in siblings}),
        revision=commit,
        licence=str(licence) if licence else None,
        gated=str(gated) if gated is not None else None,
        sha256={file.rfilename: file.lfs.sha256 for file in siblings if file.lfs is not None},
    )


def missing_bytes(source: Source, names: Sequence[str]) -> tuple[Path, int]:
    """Return where the Hub's cache is, and how many bytes of these files it has not."""
    sizes = {
        name: source.files.size(name)
        for name in names
        if not isinstance(try_to_load_from_cache(source.name, name, revision=source.revision), str)
    }
    return Path(HF_HUB_CACHE), sum(sizes.values())


def download(source: Source, names: Sequence[str], folder: Path | None, stop: Stop) -> Path:
    """Bring files to this machine: into the Hub's cache, or as files of their own into *folder*."""
    wanted = {"repo": source.name, "revision": source.revision, "names": list(names), "folder": folder and str(folder)}
    command = [sys.executable, "-m", "lora_merger.hub", json.dumps(wanted)]
    # Out of the terminal's process group: what Ctrl-C means is decided here.
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, process_group=0) as child:
        try:
            while child.poll() is None:
                with suppress(subprocess.TimeoutExpired):
                    child.wait(_LOOK_SECONDS)
                stop.check()
        finally:
            child.kill()
        told = child.stdout.read() if child.stdout is not None else b""
    answer = json.loads(told) if told else {}
    if "folder" in answer:
        return Path(answer["folder"])
    code = ExitCode(answer.get("code", ExitCode.HUB_UNAVAILABLE))
    raise Refusal(code, answer.get("message", f"hf://{source.name}: the download ended with {child.returncode}"))


def main(wanted: str) -> None:
    """Carry out a download; answer on stdout, as JSON, where the files are or what was in the way."""
    asked = json.loads(wanted)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        folder = _asked(
            lambda: snapshot_download(
                asked["repo"], revision=asked["revision"], allow_patterns=asked["names"], local_dir=asked["folder"]
            ),
            asked["repo"],
        )
        answer: dict[str, object] = {"folder": os.fspath(folder)}
    except Refusal as refusal:
        answer = _answer(refusal)
    except OSError as error:
        answer = _answer(unwritable(error, doing=f"fetching hf://{asked['repo']}"))
    sys.stdout.write(json.dumps(answer))


def _answer(refusal: Refusal) -> dict[str, object]:
    return {"code": int(refusal.code), "message": str(refusal)}


def _end_with_parent() -> None:
    """Wait until the other end of stdin is closed: whoever asked is gone, however that came."""
    # Not through sys.stdin: a thread that waits in there would disturb an orderly end.
    os.read(0, 1)
    os._exit(1)


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


if __name__ == "__main__":
    main(sys.argv[1])
