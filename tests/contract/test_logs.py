"""Operator and agent log alike: one query of whoever collects their lines finds both."""

from __future__ import annotations

import json
import logging
import sys
from datetime import datetime

import pytest

from lora_agent.logs import JsonFormatter
from lora_operator.logs import Scrubbing

FORMATTERS = pytest.mark.parametrize("formatter", [Scrubbing(), JsonFormatter()], ids=["operator", "agent"])


def record(message: str, *arguments: object, **extra: object) -> logging.LogRecord:
    """Return what a logger makes of a call."""
    logger = logging.getLogger("lora.test")
    return logger.makeRecord(logger.name, logging.WARNING, "file.py", 1, message, arguments, None, extra=extra)


def failed() -> logging.LogRecord:
    """Return what a logger makes of an exception."""
    try:
        raise ValueError("no token hf_abcdefgh")
    except ValueError:
        made = record("it failed")
        made.exc_info = sys.exc_info()
        return made


@pytest.mark.parametrize(
    "given",
    [
        pytest.param(record("loaded %s", "it"), id="a message"),
        pytest.param(record("set back", adapter="a", seconds=1.5, problem=None), id="fields"),
        pytest.param(record("asked with Bearer abc.def"), id="a credential"),
        pytest.param(failed(), id="an exception"),
    ],
)
def test_both_make_the_same_line_of_a_record(given: logging.LogRecord) -> None:
    assert Scrubbing().format(given) == JsonFormatter().format(given)


@FORMATTERS
def test_a_line_tells_when_with_its_zone_how_grave_and_by_whom(formatter: logging.Formatter) -> None:
    line = json.loads(formatter.format(record("loaded %s", "it", adapter="a")))
    told = datetime.fromisoformat(line.pop("timestamp"))
    assert told.utcoffset() is not None
    assert line == {"level": "warning", "logger": "lora.test", "message": "loaded it", "adapter": "a"}


@FORMATTERS
@pytest.mark.parametrize("secret", ["hf_abcdefgh", "Bearer abc.def", "eyJhbGciOiJI.eyJzdWIi.c2ln"])
def test_no_credential_leaves_in_a_message_a_field_or_an_exception(formatter: logging.Formatter, secret: str) -> None:
    text = formatter.format(record("the Hub said %s", secret, problem=f"with {secret}"))
    assert secret.removeprefix("Bearer ") not in text
    assert text.count("<redacted>") == 2
    assert "hf_abcdefgh" not in formatter.format(failed())
