"""The spec that lora-train reads: a LoRATrainingJob's `spec` as the operator froze it, or as a person wrote it.

Here it is read and checked, as far as that takes no network and no library: a fault is told in a moment, by its field.
"""

from __future__ import annotations

import difflib
import json
import os
import re
from collections.abc import Hashable, Sequence
from pathlib import Path
from typing import Any, Final

import yaml
from pydantic import BaseModel, Field, ValidationError
from pydantic_core import ErrorDetails

from lora_operator.api.dtype import Dtype
from lora_operator.api.served_lora import ALL_LINEAR
from lora_operator.protocol.training import (
    ENV_ADAPTER_TOKEN,
    ENV_BASE_TOKEN,
    ENV_DATASET_TOKEN,
    ENV_JOB_UID,
    ENV_OUTPUT_TOKEN,
    Reason,
)
from lora_trainer import spec_rules
from lora_trainer.by_hand import Engine, TrainSpec, beside, published_to
from lora_trainer.result import Refusal

__all__ = [
    "ALL_LINEAR",
    "Engine",
    "Identity",
    "TrainSpec",
    "dtype_of",
    "identity_from_env",
    "parse",
    "published_to",
    "read",
    "suggestion",
]


NOT_OFFERED: Final = {
    "lora.useDora": "DoRA is not among the adapters that vLLM serves",
    "lora.modulesToSave": "whole modules are not among what vLLM serves beside a base; name them in targetModules",
}
"""Fields that peft has, and a spec has not."""


FOLDERS: Final = {
    "baseModel.name": "baseModel.path",
    "dataset.source.hub.repo": "dataset.source.path",
    "lora.initFrom.hub.repo": "lora.initFrom.path",
}
"""Where a folder's name is often written, and where it belongs."""


class Identity(BaseModel):
    """Who trains and with which credentials: what the spec never holds."""

    job_uid: str = ""
    base_token: str | None = Field(default=None, repr=False)
    dataset_token: str | None = Field(default=None, repr=False)
    adapter_token: str | None = Field(default=None, repr=False)
    output_token: str | None = Field(default=None, repr=False)


def identity_from_env() -> Identity:
    """Return the credentials that the environment holds; where one is missing, the Hub client's own login is used."""
    return Identity(
        job_uid=os.environ.get(ENV_JOB_UID, ""),
        base_token=os.environ.get(ENV_BASE_TOKEN) or None,
        dataset_token=os.environ.get(ENV_DATASET_TOKEN) or None,
        adapter_token=os.environ.get(ENV_ADAPTER_TOKEN) or None,
        output_token=os.environ.get(ENV_OUTPUT_TOKEN) or None,
    )


class _Loader(yaml.SafeLoader):
    """YAML in which a field is given once: else the last would win without a word."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:  # noqa: FBT001, FBT002 - its signature
        given: set[Hashable] = set()
        for key, _ in node.value:
            name = self.construct_object(key, deep=True) if key.tag != "tag:yaml.org,2002:merge" else None
            if isinstance(name, Hashable) and name is not None:
                if name in given:
                    raise yaml.constructor.ConstructorError(None, None, f"{name} is given twice", key.start_mark)
                given.add(name)
        return super().construct_mapping(node, deep)


def read(path: Path) -> TrainSpec:
    """Return the spec in this JSON or YAML file."""
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise Refusal(Reason.CONFIG_INVALID, f"spec {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise Refusal(Reason.CONFIG_INVALID, f"spec {path}: not UTF-8 text") from error
    return beside(parse(text), path.absolute().parent)


def parse(text: str) -> TrainSpec:
    """Return the spec that this JSON or YAML text holds; refuse it by the name of the first field that is wrong."""
    try:
        raw = yaml.load(text, _Loader)  # noqa: S506 - a SafeLoader
    except yaml.YAMLError as error:
        raise Refusal(Reason.CONFIG_INVALID, f"spec is neither JSON nor YAML: {error}") from error
    if not isinstance(raw, dict):
        raise Refusal(Reason.CONFIG_INVALID, "spec is no mapping: it begins with baseModel, dataset, training")
    if "spec" in raw and "kind" in raw:
        raise Refusal(Reason.CONFIG_INVALID, "spec: this is a whole object; lora-train reads what stands under `spec:`")
    try:
        # Through JSON, as the operator writes it: YAML's dates and the like are none of the spec's types.
        # Strictly, as the apiserver does: `r: true` is no 1, nor is "8".
        frozen = json.dumps(raw, default=str)
        spec = TrainSpec.model_validate_json(frozen, strict=True, extra="forbid", by_alias=True, by_name=False)
    except ValidationError as error:
        raise Refusal(Reason.CONFIG_INVALID, _sentences(error)) from error
    for field, fault in spec_rules.faults(spec):
        raise Refusal(Reason.CONFIG_INVALID, f"{field}: {fault}")
    return spec


def _sentences(error: ValidationError) -> str:
    # A field that may be a number or a string is told once for each; one sentence says both.
    details = error.errors(include_url=False)
    shown = list(dict.fromkeys(_sentence(detail) for detail in details if not _follows(detail, details)))
    text = "; ".join(shown[:3])
    return text if len(shown) <= 3 else f"{text}; and {len(shown) - 3} more"


def _follows(detail: ErrorDetails, details: Sequence[ErrorDetails]) -> bool:
    """Tell whether a list is only found too short for what is wrong in it, which is told."""
    where = detail["loc"]
    items = (other["loc"] for other in details)
    return detail["type"] == "too_short" and any(loc != where and loc[: len(where)] == where for loc in items)


def _sentence(detail: ErrorDetails) -> str:
    where = [part for part in detail["loc"] if part != "function-after"]
    given, kind = detail["input"], detail["type"]
    if "extraArgs" in where[:-2]:
        return f'{_dotted(where[:-1])}: give a whole number or a string, which is read as YAML: "0.1", "true", "[a, b]"'
    field = _dotted(where)
    if kind == "extra_forbidden" and (why := NOT_OFFERED.get(field)):
        return f"{field}: {why}"
    if kind == "extra_forbidden":
        return f"{field}: there is no such field{_near(where)}"
    if kind == "missing":
        return f"{field}: this field is needed"
    if given is None or kind in {"too_short", "string_too_short"}:
        return f"{field}: is empty; fill it in or leave it out"
    if kind == "tuple_type":
        return f"{field}: give a list, such as [a, b]"
    if kind == "string_pattern_mismatch":
        folder = f"; a folder goes into {FOLDERS[field]}" if field in FOLDERS else ""
        return f"{field}: must be {_allowed(detail)}{folder}"
    if kind == "string_type" and isinstance(given, int | float):
        return f'{field}: write the number as a string: "{json.dumps(given)}"'
    if kind in {"int_type", "bool_type", "enum"} and len(shown := json.dumps(given)) <= 64:
        return f"{field}: {detail['msg']}, not {shown}{_same_word(detail)}"
    return f"{field}: {detail['msg']}"  # without the text: it may be a token in a wrong place


def _allowed(detail: ErrorDetails) -> str:
    from lora_operator.api import wording

    pattern = str(detail.get("ctx", {}).get("pattern"))
    return wording.allowed(pattern) or f"what the pattern {pattern} allows"


def _same_word(detail: ErrorDetails) -> str:
    """Return `; did you mean X?` for the value that is spelt alike but for capitals and underscores."""
    known = re.findall(r"'([^']+)'", detail.get("ctx", {}).get("expected", ""))
    given = str(detail["input"]).replace("_", "").lower()
    return next((f"; did you mean {word}?" for word in known if word.lower() == given), "")


def _dotted(where: Sequence[str | int]) -> str:
    return ".".join(str(part) for part in where)


def _near(where: Sequence[str | int]) -> str:
    """Return `; did you mean X?` for the field of the same model that is spelt most alike."""
    model: type[BaseModel] = TrainSpec
    for part in where[:-1]:
        inner = groups(model).get(str(part))
        if inner is None:
            return ""
        model = inner
    return suggestion(str(where[-1]), [field.alias or name for name, field in model.model_fields.items()])


def groups(model: type[BaseModel]) -> dict[str, type[BaseModel]]:
    """Return the fields of a model that have fields themselves, and their models."""
    found = {}
    for name, field in model.model_fields.items():
        for candidate in (field.annotation, *getattr(field.annotation, "__args__", ())):
            if isinstance(candidate, type) and issubclass(candidate, BaseModel):
                found[field.alias or name] = candidate
    return found


def suggestion(word: str, known: Sequence[str]) -> str:
    """Return `; did you mean X?`, or nothing where no known word is near."""
    near = difflib.get_close_matches(word, known, n=1, cutoff=0.6)
    return f"; did you mean {near[0]}?" if near else ""


def dtype_of(spec: TrainSpec, *, accelerator: bool) -> str:
    """Return torch's name of the type that the base is loaded in: always explicit, as trl's own default is float32."""
    return torch_name(spec.base_model.dtype, accelerator=accelerator)


def torch_name(dtype: Dtype, *, accelerator: bool) -> str:
    """Return torch's name of a type that the spec names."""
    match dtype:
        case Dtype.BFLOAT16:
            return "bfloat16"
        case Dtype.FLOAT32:
            return "float32"
        case Dtype.AUTO:
            return "bfloat16" if accelerator else "float32"
