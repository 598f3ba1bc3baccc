"""The audit log is read as it is being written: whole lines, final stages, writes apart from reads."""

import datetime as dt
import json
from pathlib import Path

from localcluster import audit


def line(verb: str, *, user: str = "operator", stage: str = "ResponseComplete", second: int = 0) -> str:
    entry = {
        "stage": stage,
        "verb": verb,
        "user": {"username": user},
        "requestReceivedTimestamp": f"2026-01-01T00:00:{second:02}.000001Z",
        "objectRef": {"resource": "jobs", "apiGroup": "batch", "namespace": "team", "name": "train"},
        "responseStatus": {"code": 201},
    }
    return json.dumps(entry) + "\n"


def log_of(folder: Path, *lines: str) -> Path:
    log = folder / "audit.log"
    log.write_text("".join(lines))
    return log


def test_writes_are_told_from_reads(tmp_path: Path) -> None:
    log = log_of(tmp_path, line("create"), line("get"), line("watch"), line("patch"), line("delete"))
    assert [write.verb for write in audit.writes(log)] == ["create", "patch", "delete"]
    assert len(audit.requests(log)) == 5


def test_a_request_is_counted_once_however_many_stages_it_has(tmp_path: Path) -> None:
    log = log_of(tmp_path, line("create", stage="ResponseStarted"), line("create"))
    assert len(audit.writes(log)) == 1


def test_one_users_writes_from_a_moment_on_are_picked(tmp_path: Path) -> None:
    log = log_of(tmp_path, line("create", second=1), line("patch", second=3), line("patch", user="other", second=4))
    since = dt.datetime(2026, 1, 1, 0, 0, 2, tzinfo=dt.UTC)
    assert [write.verb for write in audit.writes(log, user="operator", since=since)] == ["patch"]


def test_a_line_still_being_written_waits_for_the_next_read(tmp_path: Path) -> None:
    assert len(audit.writes(log_of(tmp_path, line("create"), line("patch")[:40]))) == 1


def test_requests_for_no_object_are_left_out(tmp_path: Path) -> None:
    health = json.loads(line("get"))
    del health["objectRef"]
    assert audit.requests(log_of(tmp_path, json.dumps(health) + "\n")) == []
