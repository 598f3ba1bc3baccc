"""Who calls, and what they may: tokens with a user, a role and organisations, against a repository's owner.

Pure. The refusals' status codes and error codes are those the client branches on.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from hubserver.gitobjects import Repo


@dataclass(frozen=True, kw_only=True, slots=True)
class Token:
    user: str
    role: Literal["read", "write"]
    orgs: tuple[str, ...] = ()

    @property
    def namespaces(self) -> tuple[str, ...]:
        return (self.user, *self.orgs)

    def may_write(self, namespace: str) -> bool:
        return self.role == "write" and namespace in self.namespaces


DEFAULT_TOKENS: Mapping[str, Token] = {
    "hf_write": Token(user="alice", role="write", orgs=("acme",)),
    "hf_read": Token(user="alice", role="read", orgs=("acme",)),
    "hf_other": Token(user="mallory", role="write"),
}


def read_tokens(path: Path) -> dict[str, Token]:
    """Read `{"<token>": {"user": ..., "role": "read" | "write", "orgs": [...]}}`."""
    return {
        secret: Token(user=entry["user"], role=entry["role"], orgs=tuple(entry.get("orgs", ())))
        for secret, entry in json.loads(path.read_text()).items()
    }


def may_see(token: Token | None, repo: Repo) -> bool:
    return not repo.private or (token is not None and repo.key.namespace in token.namespaces)


def may_download(token: Token | None, repo: Repo) -> bool:
    """Tell whether a gated repository's files are open to the caller; its page is open to all."""
    if repo.gated is None:
        return True
    return token is not None and (repo.key.namespace in token.namespaces or token.user in repo.granted)
