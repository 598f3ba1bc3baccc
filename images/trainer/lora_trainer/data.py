"""The data set: from the Hub at a pinned commit or from the file beside the spec, every row checked, before any model.

Only the columns of its format go on: what else a data set holds can't change how it is understood.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub import HfApi
from huggingface_hub.errors import GatedRepoError

from lora_operator.api.dataset import HubDataset
from lora_operator.api.meta import KeyRef
from lora_operator.protocol.training import Reason
from lora_trainer import files, hub, log, rows
from lora_trainer.hub import Denied, Patience
from lora_trainer.result import Refusal
from lora_trainer.spec import TrainSpec


@dataclass(frozen=True, kw_only=True, slots=True)
class Data:
    """A checked data set: `dataset` is a datasets.Dataset; `revision` is its commit, or its file's digest."""

    dataset: Any
    revision: str
    rows: int
    name: str
    on_hub: bool


def load(spec: TrainSpec, *, folder: Path, token: str | None, patience: Patience) -> Data:
    """Return the data set, or refuse it by row and column."""
    source = spec.dataset.source
    if source.hub is not None:
        data = _from_hub(spec, source.hub, token=token, patience=patience)
    elif source.config_map_ref is not None:
        data = _from_file(spec, source.config_map_ref, folder=folder)
    else:
        raise Refusal(Reason.CONFIG_INVALID, "dataset.source: give hub or configMapRef")
    log.say(f"data set: {data.rows} rows of {data.name} at {data.revision[:19]}")
    return data


def _from_file(spec: TrainSpec, ref: KeyRef, *, folder: Path) -> Data:
    path = folder / ref.key
    read = files.read(path, field="dataset.source.configMapRef.key")
    count = rows.check(read, data_format=spec.dataset.format)
    # Every row is of the format: the heavy import comes only now.
    import datasets

    wanted = _wanted(spec, {column for row in read for column in row})
    try:
        dataset = datasets.Dataset.from_list([{column: row.get(column) for column in wanted} for row in read])
    except (ValueError, TypeError) as error:  # pyarrow's: one column, two types
        raise Refusal(Reason.DATASET_INVALID, f"data set: the rows of {path.name} differ in type: {error}") from error
    digest = f"sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}"
    return Data(dataset=dataset, revision=digest, rows=count, name=path.name, on_hub=False)


def _from_hub(spec: TrainSpec, source: HubDataset, *, token: str | None, patience: Patience) -> Data:
    api = HfApi(token=token)
    what = f"data set {source.repo}"
    info = hub.call(
        lambda: api.dataset_info(source.repo, revision=source.revision),
        what=what,
        patience=patience,
        denied=lambda denied: _unavailable(source, denied),
    )
    if info.sha is None:
        raise Refusal(Reason.DATASET_INVALID, f"dataset.source.hub.repo: {source.repo} has no commit yet")
    revision = info.sha
    import datasets

    try:
        dataset = hub.call(
            lambda: datasets.load_dataset(
                source.repo, source.config, split=spec.dataset.split, revision=revision, token=token
            ),
            what=what,
            patience=patience,
            denied=lambda denied: _unavailable(source, denied),
        )
    except (datasets.exceptions.DatasetsError, ValueError, FileNotFoundError) as error:
        raise Refusal(Reason.DATASET_INVALID, f"dataset.source.hub: {source.repo}: {_first_words(error)}") from error
    if len(dataset) > 0:
        rows.check_columns(dataset.column_names, data_format=spec.dataset.format)
        dataset = dataset.select_columns(_wanted(spec, set(dataset.column_names)))
    count = rows.check(dataset, data_format=spec.dataset.format)
    return Data(dataset=dataset, revision=revision, rows=count, name=source.repo, on_hub=True)


def check_template(data: Data, tokenizer: Any, *, spec: TrainSpec) -> None:
    """Refuse a conversation that the base model's chat template can't say."""
    data_format = spec.dataset.format
    if not rows.conversational(data.dataset[0], data_format=data_format):
        return
    if tokenizer.chat_template is None:
        message = (
            f"dataset.format: {data_format.value} needs a chat template, and {spec.base_model.name} has none; use "
            "PromptCompletion with strings, Text, or the base model's instruct variant"
        )
        raise Refusal(Reason.CONFIG_INVALID, message)
    import jinja2

    for number, row in enumerate(data.dataset, start=1):
        try:
            tokenizer.apply_chat_template(rows.conversation(row), tools=row.get("tools"), tokenize=False)
        except (jinja2.TemplateError, TypeError, ValueError) as error:
            message = f"data set row {number}: the chat template of {spec.base_model.name} refuses it: {error}"
            raise Refusal(Reason.DATASET_INVALID, message) from error


def _wanted(spec: TrainSpec, have: set[str]) -> list[str]:
    needed, optional = rows.COLUMNS[spec.dataset.format], rows.OPTIONAL_COLUMNS[spec.dataset.format]
    return [*needed, *(column for column in optional if column in have)]


def _unavailable(source: HubDataset, denied: Denied) -> Refusal:
    if denied.revision:
        message = f"dataset.source.hub.revision: {source.repo} has no revision {source.revision!r}"
    elif issubclass(denied.kind, GatedRepoError):
        message = (
            f"dataset.source.hub.repo: {source.repo} is gated; its owner must let the token in "
            "dataset.source.hub.tokenSecretRef read it"
        )
    else:
        message = (
            f"dataset.source.hub.repo: {source.repo} is not on the Hub, or the token in "
            "dataset.source.hub.tokenSecretRef may not read it"
        )
    return Refusal(Reason.DATASET_INVALID, f"{message} ({denied.words})")


def _first_words(error: BaseException) -> str:
    """Return what the innermost cause says: datasets wraps the line that could not be read two deep."""
    while error.__cause__ is not None:
        error = error.__cause__
    return f"{type(error).__name__}: {error}".splitlines()[0][:400]
