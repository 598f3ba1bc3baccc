"""The adapter that the training goes on from (`lora.initFrom`): its files on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from huggingface_hub import HfApi

from lora_operator.adapter import CONFIG, WEIGHTS
from lora_operator.api.lora import HubAdapter
from lora_operator.protocol.training import Reason
from lora_trainer import files, hub, log
from lora_trainer.by_hand import TrainSpec
from lora_trainer.hub import Denied, Patience
from lora_trainer.result import Refusal

FILES: Final = (CONFIG, WEIGHTS)
FIELD: Final = "lora.initFrom"


def fetch(spec: TrainSpec, *, token: str | None, patience: Patience) -> Path | None:
    """Return the folder of the adapter to go on from; None where the training starts anew."""
    start = spec.lora.init_from
    if start is None:
        return None
    if start.path is not None:
        return _complete(Path(start.path), field=f"{FIELD}.path")
    if start.hub is None:
        raise Refusal(Reason.CONFIG_INVALID, f"{FIELD}: hub must be given, or path by hand")
    return _from_hub(start.hub, token=token, patience=patience)


def revision(folder: Path | None) -> str | None:
    """Return the digest of the adapter that a training goes on from: its field may name a branch, or a folder."""
    return None if folder is None else files.digest([folder / name for name in FILES])


def _from_hub(wanted: HubAdapter, *, token: str | None, patience: Patience) -> Path:
    api = HfApi(token=token)
    log.say(f"going on from {wanted.repo} at {wanted.revision[:12]}")
    folder = hub.call(
        lambda: api.snapshot_download(wanted.repo, revision=wanted.revision, allow_patterns=list(FILES)),
        what=f"{FIELD} {wanted.repo}",
        patience=patience,
        denied=lambda denied: _unavailable(wanted, denied),
    )
    return _complete(Path(folder), field=f"{FIELD}.hub")


def _complete(folder: Path, *, field: str) -> Path:
    for name in FILES:
        if not (folder / name).is_file():
            raise Refusal(Reason.CONFIG_INVALID, f"{field}: there is no {name} in it: it holds no adapter of peft's")
    return folder


def _unavailable(wanted: HubAdapter, denied: Denied) -> Refusal:
    if denied.revision:
        message = f"{FIELD}.hub.revision: {wanted.repo} has no revision {wanted.revision!r}"
    else:
        message = f"{FIELD}.hub.repo: {wanted.repo} is not on the Hub, or the token in tokenSecretRef may not read it"
    return Refusal(Reason.CONFIG_INVALID, f"{message} ({denied.words})")
