"""Fetches a data set that a web server holds, and takes it only with the digest that the spec gives."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Final
from urllib.parse import urlsplit

import httpx2

from lora_operator.api.dataset import UrlDataset
from lora_operator.protocol.training import Reason
from lora_trainer import files, hub
from lora_trainer.hub import Denied, Patience
from lora_trainer.result import Refusal

CHUNK: Final = 1 << 20
TIMEOUT_SECONDS: Final = 60.0


def fetch(source: UrlDataset, folder: Path, *, patience: Patience) -> Path:
    """Return the file in this folder; one that is there with the right digest is not fetched again."""
    name = PurePosixPath(urlsplit(source.uri).path).name
    path = folder / source.sha256[:12] / name
    if path.is_file() and files.sha256(path) == source.sha256:
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{name}.partial")
    patience = replace(patience, server=urlsplit(source.uri).hostname or "its server")
    found = hub.call(
        lambda: _stream(source.uri, partial), what="dataset.source.url", patience=patience, denied=_unavailable
    )
    if found != source.sha256:
        partial.unlink()
        message = f"dataset.source.url.sha256: the file has {found}, not {source.sha256}"
        raise Refusal(Reason.DATASET_INVALID, message)
    return partial.rename(path)


def _stream(uri: str, path: Path) -> str:
    hashed = hashlib.sha256()
    with (
        httpx2.stream("GET", uri, follow_redirects=True, timeout=TIMEOUT_SECONDS) as answer,
        path.open("wb") as file,
    ):
        answer.raise_for_status()
        for chunk in answer.iter_bytes(CHUNK):
            hashed.update(chunk)
            file.write(chunk)
    return hashed.hexdigest()


def _unavailable(denied: Denied) -> Refusal:
    return Refusal(Reason.DATASET_INVALID, f"dataset.source.url.uri: the server answers {denied.status}")
