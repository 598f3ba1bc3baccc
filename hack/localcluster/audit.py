"""Counts what clients did to the apiserver, from its audit log: the honest counter of API writes.

Read by tests and benchmarks after a control plane has run; the log's level is Metadata.
"""

import datetime as dt
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

WRITING_VERBS = frozenset({"create", "update", "patch", "delete", "deletecollection"})


@dataclass(frozen=True, kw_only=True, slots=True)
class Request:
    """One request that the apiserver answered."""

    at: dt.datetime
    user: str
    user_agent: str
    verb: str
    group: str
    resource: str
    subresource: str
    namespace: str
    name: str
    code: int
    allowed: bool
    """Whether the user may; a 403 can also come of a quota or a policy."""


def requests(log: Path, *, user: str | None = None, since: dt.datetime | None = None) -> list[Request]:
    """List answered requests, of one user where named, from a moment on where given."""
    return [
        request
        for request in _read(log)
        if (user is None or request.user == user) and (since is None or request.at >= since)
    ]


def writes(log: Path, *, user: str | None = None, since: dt.datetime | None = None) -> list[Request]:
    """List the requests that wrote something, or tried to."""
    return [request for request in requests(log, user=user, since=since) if request.verb in WRITING_VERBS]


def _read(log: Path) -> Iterator[Request]:
    with log.open() as lines:
        for line in lines:
            if not line.endswith("\n"):  # the last one is still being written
                return
            entry = json.loads(line)
            if entry["stage"] == "ResponseComplete" and "objectRef" in entry:
                yield _request(entry, entry["objectRef"])


def _request(entry: dict[str, Any], target: dict[str, str]) -> Request:
    return Request(
        at=dt.datetime.fromisoformat(entry["requestReceivedTimestamp"]),
        user=entry["user"]["username"],
        user_agent=entry.get("userAgent", ""),
        verb=entry["verb"],
        group=target.get("apiGroup", ""),
        resource=target.get("resource", ""),
        subresource=target.get("subresource", ""),
        namespace=target.get("namespace", ""),
        name=target.get("name", ""),
        code=entry.get("responseStatus", {}).get("code", 0),
        allowed=entry.get("annotations", {}).get("authorization.k8s.io/decision") == "allow",
    )
