"""The data set: from the Hub at a pinned commit, a file, a volume or a web server; every row checked, before any model.

Only the columns of its format go on: what else a data set holds can't change how it is understood.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal, TypeVar

from huggingface_hub import HfApi
from huggingface_hub.errors import GatedRepoError

from lora_operator.api.dataset import DatasetFormat, HubDataset
from lora_operator.protocol.training import CLAIM_PATH, Reason
from lora_trainer import download, files, hub, log, rows, shaping
from lora_trainer.hub import Denied, Patience
from lora_trainer.result import Refusal
from lora_trainer.rows import Row
from lora_trainer.spec import TrainSpec

T = TypeVar("T")

AS_THEY_ARE: Final = (
    DatasetFormat.MESSAGES,
    DatasetFormat.PROMPT_COMPLETION,
    DatasetFormat.TEXT,
    DatasetFormat.PREFERENCE,
)
"""Formats whose columns are trl's own."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Data:
    """A checked data set: `dataset` is a datasets.Dataset; `revision` is its commit, or its file's digest."""

    dataset: Any
    revision: str
    rows: int
    name: str
    on_hub: bool


def load(spec: TrainSpec, *, folder: Path, token: str | None, patience: Patience, split: str | None = None) -> Data:
    """Return the data set, or refuse it by row and column. `split` names another split of a data set of the Hub."""
    source = spec.dataset.source
    if source.hub is not None:
        data = _from_hub(spec, source.hub, split=split or spec.dataset.split, token=token, patience=patience)
    elif split is not None:
        raise Refusal(Reason.CONFIG_INVALID, "evaluation.split: needs dataset.source.hub: a file has no splits")
    else:
        data = _from_files(spec, *_place(spec, folder=folder, patience=patience))
    log.say(f"data set: {data.rows} rows of {data.name} at {data.revision[:19]}")
    return data


def _place(spec: TrainSpec, *, folder: Path, patience: Patience) -> tuple[Path, str]:
    """Return where the rows lie, and the field that says so."""
    source = spec.dataset.source
    if source.config_map_ref is not None:
        return folder / source.config_map_ref.key, "dataset.source.configMapRef.key"
    if source.path is not None:
        return Path(source.path), "dataset.source.path"
    if source.pvc is not None:
        return Path(CLAIM_PATH) / source.pvc.path, "dataset.source.pvc.path"
    if source.url is not None:
        return download.fetch(source.url, _cache(), patience=patience), "dataset.source.url.uri"
    raise Refusal(Reason.CONFIG_INVALID, "dataset.source: give hub, configMapRef, pvc, url or path")


def _cache() -> Path:
    from huggingface_hub.constants import HF_HOME

    return Path(HF_HOME) / "lora-train"


def _from_files(spec: TrainSpec, path: Path, field: str) -> Data:
    paths = files.within(path, field=field)
    rename = shaping.named(spec.dataset.column_map)
    kept = [row for file in paths for row in files.read(file, field=field)][: spec.dataset.max_samples]
    if kept:
        shaping.check_named(spec.dataset.column_map, {column for row in kept for column in row})
    kept = [rename(row) for row in kept]
    count = rows.check(kept, data_format=spec.dataset.format, columns=_template_columns(spec))
    # Every row is of the format: the heavy import comes only now.
    import datasets

    shape = shaping.shaper(spec.dataset, {column for row in kept for column in row})
    try:
        # Arrow would give every message and tool the fields of all others, and the model would learn from them.
        dataset = datasets.Dataset.from_list([shape(row) for row in kept], on_mixed_types=_mixed(kept))
    except (ValueError, TypeError) as error:  # pyarrow's: one column, two types
        raise Refusal(Reason.DATASET_INVALID, f"data set: the rows of {path.name} differ in type: {error}") from error
    return Data(dataset=dataset, revision=files.digest(paths), rows=count, name=path.name, on_hub=False)


def _mixed(kept: Sequence[Row]) -> Literal["use_json"] | None:
    """Return how datasets is to keep values of several shapes: as they are, where there are any with a shape."""
    return "use_json" if any(isinstance(value, list | dict) for row in kept for value in row.values()) else None


def _from_hub(spec: TrainSpec, source: HubDataset, *, split: str, token: str | None, patience: Patience) -> Data:
    if Path(source.repo).exists():
        where = f"there is a folder {source.repo} in {Path.cwd()}, which datasets would read in its place"
        raise Refusal(Reason.CONFIG_INVALID, f"dataset.source.hub.repo: {where}; run in another one, or give path")
    api = HfApi(token=token)

    def ask(function: Callable[[], T]) -> T:
        return hub.call(
            function,
            what=f"data set {source.repo}",
            patience=patience,
            denied=lambda denied: _unavailable(source, denied),
        )

    revision = ask(lambda: api.dataset_info(source.repo, revision=source.revision)).sha
    if revision is None:
        raise Refusal(Reason.DATASET_INVALID, f"dataset.source.hub.repo: {source.repo} has no commit yet")
    ask(lambda: api.auth_check(source.repo, repo_type="dataset"))  # what there is of a gated one, anybody may know
    import datasets

    # Where a file can't be had, datasets takes what it has of any revision: in this folder there is none but this one.
    cache = str(Path(datasets.config.HF_DATASETS_CACHE) / revision)
    try:
        dataset = ask(
            lambda: datasets.load_dataset(
                source.repo, source.config, split=split, revision=revision, token=token, cache_dir=cache
            )
        )
    except (datasets.exceptions.DatasetsError, ValueError, FileNotFoundError) as error:
        raise Refusal(Reason.DATASET_INVALID, f"dataset.source.hub: {source.repo}: {_first_words(error)}") from error
    if spec.dataset.max_samples is not None and len(dataset) > spec.dataset.max_samples:
        dataset = dataset.select(range(spec.dataset.max_samples))
    dataset = _with_own_fields(_shaped(dataset, spec))
    return Data(dataset=dataset, revision=revision, rows=len(dataset), name=source.repo, on_hub=True)


def _shaped(dataset: Any, spec: TrainSpec) -> Any:
    data_format, columns = spec.dataset.format, _template_columns(spec)
    rename = shaping.named(spec.dataset.column_map)
    shaping.check_named(spec.dataset.column_map, dataset.column_names)
    have = set(rename(dict.fromkeys(dataset.column_names)))
    if len(dataset) > 0:
        rows.check_columns(have, data_format=data_format, columns=columns)
    rows.check((rename(row) for row in dataset), data_format=data_format, columns=columns)
    shape = shaping.shaper(spec.dataset, have)
    made = set(shape(rename(dataset[0])))
    theirs = [name for name in dataset.column_names if name not in made]
    if not spec.dataset.column_map and spec.dataset.format in AS_THEY_ARE:
        return dataset.remove_columns(theirs)
    return dataset.map(lambda row: shape(rename(row)), remove_columns=theirs)


def _with_own_fields(dataset: Any) -> Any:
    """Take empty fields out of messages and tools, if there are any: a parquet file has them for all rows alike."""
    if not rows.conversational(dataset[0]) or all(rows.own_fields(row) == row for row in dataset):
        return dataset
    import datasets

    return datasets.Dataset.from_list([rows.own_fields(row) for row in dataset], on_mixed_types="use_json")


def _template_columns(spec: TrainSpec) -> tuple[str, ...]:
    template = spec.dataset.template
    return shaping.columns_of(template) if template is not None else ()


def check_template(data: Data, tokenizer: Any, *, spec: TrainSpec) -> None:
    """Refuse a conversation that the base model's chat template can't say."""
    data_format = spec.dataset.format
    if not rows.conversational(data.dataset[0]):
        return
    if tokenizer.chat_template is None:
        message = (
            f"dataset.format: {data_format.value} needs a chat template, and {spec.base_model.name} has none; use "
            "PromptCompletion with strings, Text, or the base model's instruct variant"
        )
        raise Refusal(Reason.CONFIG_INVALID, message)
    for number, row in enumerate(data.dataset, start=1):
        for messages in rows.conversations(row):
            if fault := _unsayable(messages, rows.tools(row), tokenizer):
                message = f"data set row {number}: the chat template of {spec.base_model.name} {fault}"
                raise Refusal(Reason.DATASET_INVALID, message)


def _unsayable(messages: list[object], tools: list[object] | None, tokenizer: Any) -> str | None:
    """Return why the template can't say a conversation: it raises, or says the word None for a content left out."""
    import jinja2

    spoken = rows.spoken(messages)
    advice = '; give messages without content the content ""' if spoken is not None else ""
    try:
        said = tokenizer.apply_chat_template(messages, tools=tools, tokenize=False)
        with_empty = said if spoken is None else tokenizer.apply_chat_template(spoken, tools=tools, tokenize=False)
    except (jinja2.TemplateError, TypeError, ValueError) as error:
        return f"refuses it: {error}{advice}"
    if said.count("None") > with_empty.count("None"):
        return f"says None where a message has no content{advice}"
    return None


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
