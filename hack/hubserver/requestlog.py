"""What was asked of the server, one record a request: for tests that count calls and bytes. Never a token."""

import json
from collections import deque
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Literal

KEPT_RECORDS = 100_000


@dataclass(kw_only=True, slots=True)
class Record:
    """Made when the request arrives and completed as it is answered: without a status it is still on its way."""

    host: Literal["api", "files"]
    method: str
    path: str
    range: str | None
    token_sent: bool
    user: str | None  # whose token it was, where the server knows it
    received_bytes: int
    status: int | None = None
    sent_bytes: int = 0
    faulted: bool = False


class RequestLog:
    def __init__(self, path: Path | None = None) -> None:
        self._records: deque[Record] = deque(maxlen=KEPT_RECORDS)
        self._path = path

    def arrived(self, record: Record) -> None:
        self._records.append(record)

    def answered(self, record: Record) -> None:
        if self._path is not None:
            with self._path.open("a") as file:
                file.write(json.dumps(asdict(record)) + "\n")

    def records(self) -> list[Record]:
        """Return copies, so that what a test holds doesn't change under it."""
        return [replace(record) for record in list(self._records)]

    def clear(self) -> None:
        self._records.clear()
