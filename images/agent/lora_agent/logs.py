"""JSON lines on standard error, as the operator's logs: one object a line, fields by name, never a secret.

No secret is ever passed to a logger; what looks like one, in a text from outside, is replaced all the same. Of the
operator the agent imports contracts only, so a few lines of its `logs` are here again: a contract test compares them.
"""

from __future__ import annotations

import json
import logging
import re
from datetime import UTC, datetime
from typing import Final

SECRET: Final = re.compile(r"hf_[A-Za-z0-9]{4,}|(?<=Bearer )[A-Za-z0-9._~+/=-]+|eyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9._-]+")
_OWN: Final = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime"}


class JsonFormatter(logging.Formatter):
    """One JSON object a record, without credentials; what is given as `extra` becomes fields beside the message."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line for a record."""
        line: dict[str, object] = {
            "timestamp": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        line |= {key: value for key, value in vars(record).items() if key not in _OWN}
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return SECRET.sub("<redacted>", json.dumps(line, default=str))


def set_up(level: int = logging.INFO) -> None:
    """Send every logger to standard error in JSON."""
    handler = logging.StreamHandler()
    handler.setFormatter(JsonFormatter())
    logging.basicConfig(level=level, handlers=[handler], force=True)
