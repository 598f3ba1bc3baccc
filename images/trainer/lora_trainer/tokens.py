"""What of a data set is learnt: how many tokens, how many of them count, how many rows are cut. As trl counts them.

Counted before any model is loaded, on a sample of a large data set, and by trl's own rules: the end-of-text token, the
prompt that ends where its tokens and those of the whole part, the chat template's marks, the cut at maxLength.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

from lora_operator.api.training import Method
from lora_operator.protocol.training import Reason
from lora_trainer import data, log, positions, rows
from lora_trainer.base import BaseModel
from lora_trainer.by_hand import TrainSpec
from lora_trainer.data import Data
from lora_trainer.positions import Positions
from lora_trainer.result import Refusal
from lora_trainer.rows import Row

SAMPLE: Final = 2000
"""Rows that are looked at, spread over the data set."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Tokens:
    """What was counted, in the rows that were looked at."""

    rows: int
    total: int
    trained: int
    cut: int
    """Rows longer than maxLength."""
    lost: int
    """Rows of which nothing is left to learn from."""
    longest: int

    @property
    def share(self) -> float:
        """Return the part of the tokens that is learnt."""
        return self.trained / self.total if self.total else 0.0

    def metrics(self) -> dict[str, str]:
        """Return what the result tells."""
        return {"trained_token_share": f"{self.share:.4g}", "cut_row_share": f"{self.cut / max(self.rows, 1):.4g}"}

    def __str__(self) -> str:
        """Say it."""
        return (
            f"{self.total} tokens in {self.rows} rows, {self.share:.1%} of them learnt; the longest row has "
            f"{self.longest}, {self.cut} are cut, of {self.lost} nothing is left to learn from"
        )


def tokenizer(base: BaseModel) -> Any:
    """Return the base's tokenizer."""
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(base.folder)
    except (OSError, ValueError) as error:
        message = f"baseModel.name: {base.name} has no tokenizer that transformers can load: {error}"
        raise Refusal(Reason.BASE_MODEL_UNAVAILABLE, message) from error


def count_in(spec: TrainSpec, rows_of: Data, words: Any) -> Tokens:
    """Count, having made sure that the base's chat template can say every row; the log tells.

    `words` is the tokenizer.
    """
    data.check_template(rows_of, words, spec=spec)
    found = check(spec, rows_of, words)
    log.say(f"data set: {found}")
    return found


def check(spec: TrainSpec, rows_of: Data, words: Any) -> Tokens:
    """Count, and refuse a data set from which nothing would be learnt, or all where only a part was to be.

    `words` is the tokenizer.
    """
    if words.eos_token is None:
        message = f"baseModel.name: the tokenizer of {spec.base_model.name} has no end-of-text token to learn"
        raise Refusal(Reason.BASE_MODEL_UNAVAILABLE, message)
    for key in ("eos_token", "pad_token"):
        token = spec.training.extra_args.get(key)
        if token is not None and token not in words.get_vocab():
            message = f"training.extraArgs.{key}: the tokenizer of {spec.base_model.name} has no token {token!r}"
            raise Refusal(Reason.CONFIG_INVALID, message)
    template = _training_template(spec, words, rows_of.dataset[0])
    step = -(-rows_of.rows // SAMPLE)
    found = count(_masks(spec, rows_of.dataset, words, template, step=step), spec.training.max_length)
    field = _masking_field(spec, rows_of.dataset[0])
    if found.trained == 0:
        cause = f"every row is cut at training.maxLength {spec.training.max_length} before what is to be learnt begins"
        raise Refusal(
            Reason.DATASET_INVALID,
            f"{field or 'training.maxLength'}: nothing would be learnt, for {cause}"
            if found.cut
            else f"{field or 'dataset.format'}: nothing would be learnt, no token of {found.rows} rows counts",
        )
    if field is not None and found.trained == found.total:
        message = f"{field}: only a part of the tokens was to be learnt, and all {found.total} would be"
        raise Refusal(Reason.DATASET_INVALID, message)
    return found


def count(masks: Iterator[Sequence[int]], max_length: int) -> Tokens:
    """Add up rows, each given as one 0 or 1 a token: whether it counts."""
    number = total = trained = cut = lost = longest = 0
    for mask in masks:
        kept = mask[:max_length]
        number, longest, cut = number + 1, max(longest, len(mask)), cut + (len(mask) > max_length)
        if not any(kept):
            lost += 1  # trl drops it
            continue
        total, trained = total + len(kept), trained + sum(kept)
    return Tokens(rows=number, total=total, trained=trained, cut=cut, lost=lost, longest=longest)


def within(spec: TrainSpec, found: Positions, parts: Sequence[Any], *, base: BaseModel) -> str:
    """Refuse rows that go beyond the positions which the base has learnt; return what is to be warned of.

    `parts` are the rows to train on, and those to evaluate on or None; nothing where they are not known. Only where
    `training.maxLength` would let one be too long are they counted, all of them.
    """
    longest = None
    if parts and found.learnt and found.fewer_than(spec.training.max_length):
        words = tokenizer(base)
        longest = max(_longest(spec, rows, words) for rows in parts if rows is not None)
    return positions.check(found, spec.training, name=base.name, longest=longest)


def _longest(spec: TrainSpec, dataset: Any, words: Any) -> int:
    template = _training_template(spec, words, dataset[0])
    return min(max(map(len, _masks(spec, dataset, words, template, step=1))), spec.training.max_length)


def _masks(spec: TrainSpec, dataset: Any, words: Any, template: str | None, *, step: int) -> Iterator[list[int]]:
    for index in range(0, len(dataset), step):
        row = dataset[index]
        if spec.method is Method.DPO:
            yield from _preference(row, words)
        else:
            yield _row(spec, row, words, template, number=index + 1)


def _row(spec: TrainSpec, row: Row, words: Any, template: str | None, *, number: int) -> list[int]:
    if "prompt" in row:
        prompt, whole = _ids(words, row, "prompt", template=template), _whole(words, row, "completion", template)
        given = _shared(prompt, whole) if _completion_only(spec, row) else 0
        marks = _marked(spec, words, row, template, number=number) if _assistant_only(spec) else [1] * len(whole)
        return [0] * given + marks[given:]
    if _assistant_only(spec):
        return _marked(spec, words, row, template, number=number)
    return [1] * len(_ids(words, row, "messages" if "messages" in row else "text", template=template, end=True))


def _preference(row: Row, words: Any) -> Iterator[list[int]]:
    if row.get("prompt") is None:
        yield from ([1] * len(_ids(words, row, column)) for column in ("chosen", "rejected"))
        return
    prompt = _ids(words, row, "prompt")
    for column in ("chosen", "rejected"):
        whole = _whole(words, row, column, None)
        given = _shared(prompt, whole)
        yield [0] * given + [1] * (len(whole) - given)


def _ids(words: Any, row: Row, column: str, *, template: str | None = None, end: bool = False) -> list[int]:
    value = row[column]
    if isinstance(value, list):
        more = {"add_generation_prompt": True} if column == "prompt" else {}
        return _said(words, value, row, template, **more)["input_ids"]
    return list(words(text=_ended(words, str(value)) if end else value)["input_ids"])


def _whole(words: Any, row: Row, column: str, template: str | None) -> list[int]:
    prompt, rest = row["prompt"], row[column]
    if isinstance(prompt, list) and isinstance(rest, list):
        return _said(words, [*prompt, *rest], row, template)["input_ids"]
    return list(words(text=str(prompt) + _ended(words, str(rest)))["input_ids"])


def check_marks(spec: TrainSpec, dataset: Any, words: Any) -> None:
    """Refuse the first of all rows that has nothing of the assistant's, where only that is to be learnt."""
    if _assistant_only(spec):
        template = _training_template(spec, words, dataset[0])
        for number, row in enumerate(dataset, start=1):
            _marked(spec, words, row, template, number=number)


def _marked(spec: TrainSpec, words: Any, row: Row, template: str | None, *, number: int) -> list[int]:
    marks = _said(words, rows.conversations(row)[0], row, template, return_assistant_tokens_mask=True)[
        "assistant_masks"
    ]
    if 1 not in marks:
        message = (
            f"training.assistantOnlyLoss: data set row {number} has nothing that the chat template of "
            f"{spec.base_model.name} marks as the assistant's"
        )
        raise Refusal(Reason.DATASET_INVALID, message)
    return marks


def _said(words: Any, messages: list[object], row: Row, template: str | None, **more: Any) -> dict[str, list[int]]:
    said = words.apply_chat_template(
        messages, tokenize=True, return_dict=True, chat_template=template, tools=rows.tools(row), **more
    )
    return {name: list(said[name]) for name in ("input_ids", "assistant_masks") if name in said}


def _ended(words: Any, text: str) -> str:
    return text if text.endswith(words.eos_token) else text + words.eos_token


def _shared(prompt: Sequence[int], whole: Sequence[int]) -> int:
    return next((n for n, (one, other) in enumerate(zip(prompt, whole, strict=False)) if one != other), len(prompt))


def _assistant_only(spec: TrainSpec) -> bool:
    return spec.training.assistant_only_loss


def _completion_only(spec: TrainSpec, row: Row) -> bool:
    wanted = spec.training.completion_only_loss
    return "prompt" in row if wanted is None else wanted


def _masking_field(spec: TrainSpec, row: Row) -> str | None:
    """Return the field by which only a part of the tokens is to be learnt."""
    if spec.method is Method.DPO:
        return None
    if _assistant_only(spec):
        return "training.assistantOnlyLoss"
    return "training.completionOnlyLoss" if _completion_only(spec, row) else None


def _training_template(spec: TrainSpec, words: Any, row: Row) -> str | None:
    """Return the chat template with marks that trl has for this family; None where the tokenizer's own will do."""
    if not _assistant_only(spec):
        return None
    if not rows.conversational(row):
        raise Refusal(
            Reason.CONFIG_INVALID,
            f"training.assistantOnlyLoss: needs conversations, and dataset.format {spec.dataset.format.value} has none",
        )
    from trl.chat_template_utils import get_training_chat_template, has_generation_markers

    if has_generation_markers(words.chat_template):
        return None
    try:
        found: str | None = get_training_chat_template(words)
    except ValueError as error:
        message = (
            f"training.assistantOnlyLoss: the chat template of {spec.base_model.name} does not mark the assistant's "
            "words ({% generation %}), and trl knows no such template for it; use dataset.format: PromptCompletion"
        )
        raise Refusal(Reason.CONFIG_INVALID, message) from error
    return found
