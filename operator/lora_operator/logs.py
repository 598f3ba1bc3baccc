"""Logging as JSON lines, without anything that looks like a credential."""

from __future__ import annotations

import logging
import re
from typing import Final

from pythonjsonlogger.json import JsonFormatter

SECRET: Final = re.compile(r"hf_[A-Za-z0-9]{4,}|(?<=Bearer )[A-Za-z0-9._~+/=-]+|eyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9._-]+")


class Scrubbing(JsonFormatter):
    """A JSON formatter that replaces Hub tokens, bearer tokens and JWTs wherever they stand in a line."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line without credentials."""
        return SECRET.sub("<redacted>", super().format(record))


def set_up(level: str) -> None:
    """Send everything to standard error as JSON; kopf's line for each event is noise here."""
    handler = logging.StreamHandler()
    handler.setFormatter(
        Scrubbing("%(asctime)s %(levelname)s %(name)s %(message)s", rename_fields={"levelname": "level"})
    )
    logging.basicConfig(level=level, handlers=[handler], force=True)
    logging.getLogger("kopf.objects").setLevel(logging.WARNING)
    logging.getLogger("aiohttp.access").setLevel(logging.WARNING)
    logging.getLogger("httpx2").setLevel(logging.WARNING)
