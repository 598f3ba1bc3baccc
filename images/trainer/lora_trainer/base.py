"""The base model: its revision resolved to a commit, its files on this machine, and what they say of its shapes."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from huggingface_hub import HfApi
from huggingface_hub.errors import GatedRepoError

from lora_operator.adapter import BASE_CONFIG, Base, base_from_directory, base_weights_files, read_header
from lora_operator.protocol.training import Reason
from lora_trainer import files, hub, log
from lora_trainer.hub import Denied, Patience
from lora_trainer.result import Refusal
from lora_trainer.spec import TrainSpec

WEIGHTS: Final = "*.safetensors"
FILES: Final = ("*.json", "*.jinja", "*.model", "*.txt", WEIGHTS)
"""Config, tokenizer and weights. No pickles, and no code: neither would be loaded."""
INDEX: Final = "model.safetensors.index.json"
COPIES: Final = "consolidated*.safetensors"
NOT_FILES: Final = ("*/*", COPIES)
"""Other frameworks' copies of the same weights."""


@dataclass(frozen=True, kw_only=True, slots=True)
class BaseModel:
    """The base on this machine."""

    name: str
    revision: str
    folder: Path
    field: str = "baseModel.name"
    """The field that says where it is from."""


def resolve(spec: TrainSpec, *, token: str | None, patience: Patience) -> str:
    """Return the commit that baseModel.revision means now; of a folder, a digest of what is read from it."""
    base = spec.base_model
    if base.path is not None:
        return _digest(_here(base.path))
    api = HfApi(token=token)
    info = hub.call(
        lambda: api.model_info(base.name, revision=base.revision),
        what=f"baseModel {base.name}",
        patience=patience,
        denied=lambda denied: _unavailable(spec, denied),
    )
    if info.sha is None:
        raise Refusal(Reason.BASE_MODEL_UNAVAILABLE, f"baseModel.name: {base.name} has no commit yet")
    return info.sha


def fetch(spec: TrainSpec, *, revision: str, token: str | None, patience: Patience, weights: bool = True) -> BaseModel:
    """Bring the base's files here, at this commit; `weights` tells whether they are needed too."""
    name = spec.base_model.name
    if spec.base_model.path is not None:
        folder = _here(spec.base_model.path)
        _complete(folder, weights=weights or (folder / INDEX).is_file(), said=f"baseModel.path: {folder}")
        return BaseModel(name=name, revision=revision, folder=folder, field="baseModel.path")
    api = HfApi(token=token)
    log.say(f"base model: {name} at {revision[:12]}")
    fetched = hub.call(
        lambda: api.snapshot_download(
            name,
            revision=revision,
            allow_patterns=[pattern for pattern in FILES if weights or pattern != WEIGHTS],
            ignore_patterns=list(NOT_FILES),
        ),
        what=f"baseModel {name}",
        patience=patience,
        denied=lambda denied: _unavailable(spec, denied),
    )
    folder = Path(fetched)
    _complete(folder, weights=weights, said=f"baseModel.name: {name}")
    return BaseModel(name=name, revision=revision, folder=folder)


def _digest(folder: Path) -> str:
    found = sorted({path for pattern in FILES for path in folder.glob(pattern) if path.is_file()})
    return files.digest([path for path in found if not path.match(COPIES)], of=files.sampled)


def _here(path: str) -> Path:
    folder = Path(path)
    if not (folder / "config.json").is_file():
        message = f"baseModel.path: {path} is no folder with a config.json: it is no model that transformers can load"
        raise Refusal(Reason.BASE_MODEL_UNAVAILABLE, message)
    return folder


def _complete(folder: Path, *, weights: bool, said: str) -> None:
    """Refuse a folder that lacks something; `said` is how the spec says it."""
    if not (folder / "config.json").is_file():
        message = f"{said} has no config.json: it is no model that transformers can load"
        raise Refusal(Reason.BASE_MODEL_UNAVAILABLE, message)
    index = folder / INDEX
    if weights and index.is_file():
        missing = sorted(name for name in _shards(index) if not (folder / name).is_file())
        if missing:
            message = f"{said} lacks {len(missing)} of the files that {index.name} names: {missing[0]}"
            raise Refusal(Reason.BASE_MODEL_UNAVAILABLE, message)
    if weights and not any(folder.glob(WEIGHTS)):
        raise Refusal(Reason.BASE_MODEL_UNAVAILABLE, f"{said} has no safetensors weights; pickles are not loaded")


def _shards(index: Path) -> set[str]:
    try:
        return set(json.loads(index.read_bytes())["weight_map"].values())
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        message = f"baseModel: {index} is no index of weights: {error}"
        raise Refusal(Reason.BASE_MODEL_UNAVAILABLE, message) from error


def shapes(base: BaseModel) -> Base | None:
    """Return the shapes that an adapter must fit: from the weights' headers, else from config.json."""
    try:
        return base_from_directory(base.folder)
    except (OSError, ValueError) as error:
        message = f"{base.field}: {_broken(base.folder)} can't be read: {error}"
        raise Refusal(Reason.BASE_MODEL_UNAVAILABLE, message) from error


def _broken(folder: Path) -> Path:
    """Return the file of a base which can't be read."""
    for name in base_weights_files(path.name for path in folder.iterdir()):
        try:
            with (folder / name).open("rb") as file:
                read_header(file, (folder / name).stat().st_size)
        except (OSError, ValueError):
            return folder / name
    return folder / BASE_CONFIG


def _unavailable(spec: TrainSpec, denied: Denied) -> Refusal:
    base = spec.base_model
    if denied.revision:
        message = f"baseModel.revision: {base.name} has no revision {base.revision!r}"
    elif issubclass(denied.kind, GatedRepoError):
        message = (
            f"baseModel.name: {base.name} is gated; its owner must let the token in baseModel.tokenSecretRef read it"
        )
    else:
        message = (
            f"baseModel.name: {base.name} is not on the Hub, or the token in baseModel.tokenSecretRef may not read it"
        )
    return Refusal(Reason.BASE_MODEL_UNAVAILABLE, f"{message} ({denied.words})")
