"""The data set of a LoRATrainingJob: where its rows come from, and what a row looks like."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Final

from pydantic import ConfigDict, Field

from lora_operator.api.meta import KeyRef
from lora_operator.api.schema import HubRepo, Model, Name, Revision, rules

SOURCES: Final = ("hub", "configMapRef", "pvc", "url")
PathOnVolume = Annotated[
    str,
    Field(min_length=1, max_length=1024, pattern=r"^[^/].*$"),
    Field(json_schema_extra=rules(("!self.split('/').exists(part, part == '..')", "path must stay in the volume"))),
]
Address = Annotated[str, Field(min_length=1, max_length=2048, pattern=r"^https?://[^\s/]+/[^\s]*$")]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$", max_length=64)]


class HubDataset(Model):
    """A data set in a repository of the Hugging Face Hub."""

    repo: HubRepo
    """repo of the data set on the Hub."""
    revision: Revision = "main"
    """revision is a branch, tag or commit; the commit that was used is in `status.resolved`."""
    config: Annotated[str, Field(min_length=1, max_length=253)] | None = None
    """config is the name of one of the data set's configurations."""
    token_secret_ref: KeyRef | None = None
    """tokenSecretRef is the Secret's key with a Hub token that may read the data set."""


class PvcDataset(Model):
    """A file, or a folder of files, on a volume."""

    claim_name: Name
    """claimName is the PersistentVolumeClaim, in the same namespace; it is mounted to be read only."""
    path: PathOnVolume
    """path on the volume of a file that ends in .jsonl, .json, .csv or .parquet, or of a folder of such files."""


class UrlDataset(Model):
    """A file that a web server holds."""

    uri: Address
    """uri of the file; its path ends in .jsonl, .json, .csv or .parquet."""
    sha256: Sha256
    """sha256 of the file, in hexadecimal: what is fetched must have it."""


class DatasetSource(Model):
    """Where the data set comes from: exactly one of the fields."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            (
                f"[{', '.join(f'has(self.{name})' for name in SOURCES)}].filter(given, given).size() == 1",
                "exactly one of hub, configMapRef, pvc and url must be given",
            )
        )
    )

    hub: HubDataset | None = None
    """hub is a repository of the Hugging Face Hub."""
    config_map_ref: KeyRef | None = None
    """configMapRef is a ConfigMap's key that holds the data set; the key ends in .jsonl, .json or .csv."""
    pvc: PvcDataset | None = None
    """pvc is a file or a folder on a volume."""
    url: UrlDataset | None = None
    """url is a file that a web server holds, with its digest."""


class DatasetFormat(StrEnum):
    """What one row of the data set looks like."""

    MESSAGES = "Messages"
    PROMPT_COMPLETION = "PromptCompletion"
    TEXT = "Text"
    PREFERENCE = "Preference"
    ALPACA = "Alpaca"
    DOLLY = "Dolly"
    TEMPLATE = "Template"


Pattern = Annotated[str, Field(min_length=1, max_length=8192)]
Column = Annotated[str, Field(min_length=1, max_length=253)]


class RowTemplate(Model):
    """How a row of any columns becomes a text: `{column}` stands for a column's value, `{{` and `}}` for braces."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            (
                "has(self.prompt) == has(self.completion) && has(self.prompt) != has(self.text)",
                "give prompt and completion, or text",
            )
        )
    )

    prompt: Pattern | None = None
    """prompt is the part of the text that is given; nothing is learnt from it."""
    completion: Pattern | None = None
    """completion is the part of the text that is learnt."""
    text: Pattern | None = None
    """text is all of it, learnt as a whole."""


class Dataset(Model):
    """The data set."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            ("(self.format == 'Template') == has(self.template)", "template belongs to format: Template"),
            (
                "!has(self.columnMap) || self.format != 'Template'",
                "columnMap has no use with format Template: name the columns in template",
            ),
        )
    )

    source: DatasetSource
    """source of the data set."""
    format: DatasetFormat
    """format of a row: Messages (`messages`, a chat), PromptCompletion (`prompt` and `completion`), Text (`text`),
    Preference (`prompt`, `chosen` and `rejected`), Alpaca (`instruction`, `input`, `output`), Dolly (`instruction`,
    `context`, `response`), or Template."""
    template: RowTemplate | None = None
    """template makes a text of a row, for format Template."""
    column_map: (
        Annotated[
            dict[str, Column],
            Field(
                max_length=16,
                json_schema_extra=rules(
                    ("self.all(name, name.size() <= 64)", "a key of columnMap has at most 64 characters")
                ),
            ),
        ]
        | None
    ) = None
    """columnMap gives, for a column of the format, its name in the data set, such as `completion: answer`."""
    split: Annotated[str, Field(min_length=1, max_length=253)] = "train"
    """split of the data set to train on."""
    max_samples: Annotated[int, Field(ge=1, le=1_000_000_000)] | None = None
    """maxSamples takes no more than so many rows of the split, the first ones."""
