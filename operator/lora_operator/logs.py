"""Logging as JSON lines on standard error, without anything that looks like a credential.

A line reads as one of the agent's (`lora_agent.logs`), so that one query finds both: timestamp, level, logger, message,
then what was given as `extra`, and the exception.
"""

from __future__ import annotations

import logging
import re
from datetime import UTC, datetime
from typing import Any, Final

from pythonjsonlogger.json import JsonFormatter

SECRET: Final = re.compile(r"hf_[A-Za-z0-9]{4,}|(?<=Bearer )[A-Za-z0-9._~+/=-]+|eyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9._-]+")


class Scrubbing(JsonFormatter):
    """A JSON formatter that replaces Hub tokens, bearer tokens and JWTs wherever they stand in a line."""

    def __init__(self) -> None:
        super().__init__("%(name)s %(message)s", rename_fields={"name": "logger", "exc_info": "exception"})

    def add_fields(self, log_data: dict[str, Any], record: logging.LogRecord, message_dict: dict[str, Any]) -> None:
        """Put when and how grave before the rest."""
        log_data["timestamp"] = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        log_data["level"] = record.levelname.lower()
        super().add_fields(log_data, record, message_dict)

    def format(self, record: logging.LogRecord) -> str:
        """Return the line without credentials."""
        return SECRET.sub("<redacted>", super().format(record))


def set_up(level: str) -> None:
    """Send everything to standard error as JSON; kopf's line for each event is noise here."""
    handler = logging.StreamHandler()
    handler.setFormatter(Scrubbing())
    logging.basicConfig(level=level, handlers=[handler], force=True)
    logging.getLogger("kopf.objects").setLevel(logging.WARNING)
    logging.getLogger("aiohttp.access").setLevel(logging.WARNING)
    logging.getLogger("httpx2").setLevel(logging.WARNING)
