"""What the patterns of the kinds allow, in words with an example: for whoever refuses a value by one of them. Pure.

An apiserver can only show the pattern; a person who reads it wants to know what to write instead.
"""

from __future__ import annotations

from typing import Any, Final

from pydantic import TypeAdapter

from lora_operator.api import dataset, lora, schema, training, training_run

_WORDS: Final = (
    (schema.Name, "lower-case letters, digits, - and ., the first and the last a letter or digit, such as vllm-llama"),
    (schema.Namespace, "lower-case letters, digits and -, the first and the last a letter or digit, such as team-a"),
    (schema.DataKey, "letters, digits, -, _ and ., such as train.jsonl"),
    (schema.ServedName, "letters, digits and any of . _ : / -, such as support-bot"),
    (
        schema.HubRepo,
        "NAME or OWNER/NAME on the Hub: letters, digits and _, with single - or . between, such as acme/support-lora",
    ),
    (schema.Revision, "a branch, tag or commit: letters, digits and any of . _ / -, such as main"),
    (schema.Decimal, 'a decimal that is not negative, with a digit before its point, such as "0.1" or "2e-4"'),
    (training_run.SignedDecimal, 'a decimal with a digit before its point, such as "0.02" or "-0.02"'),
    (schema.Quantity, "an amount as Kubernetes writes it, such as 20Gi or 500M"),
    (
        lora.TargetModule,
        "a module, by the end of its name, such as q_proj: letters, digits and any of _ . -, and no regular expression",
    ),
    (dataset.PathOnVolume, "a path on the volume that does not begin with /, such as support/train.jsonl"),
    (dataset.Address, "the address of a file on a web server, such as https://example.com/train.jsonl"),
    (dataset.Sha256, "64 hexadecimal digits in lower case, as sha256sum prints them"),
    (training.Tag, "letters, digits and any of . _ -, the first a letter or digit, such as v3"),
    (training_run.MetricName, "a metric of the evaluation by trl's name for it, such as eval_loss"),
)


def allowed(pattern: str) -> str | None:
    """Return what a pattern allows; None for one that is none of these."""
    return next((words for kind, words in _WORDS if _pattern(kind) == pattern), None)


def _pattern(kind: Any) -> str:
    return str(TypeAdapter(kind).json_schema()["pattern"])
