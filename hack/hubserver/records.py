"""A repository as JSON and back: what `store.py` keeps on disk. Pure."""

from dataclasses import asdict
from typing import Any

from hubserver.gitobjects import Commit, File, Repo, RepoKey


def dump(repo: Repo) -> dict[str, Any]:
    return {**asdict(repo), "granted": sorted(repo.granted)}


def load(record: dict[str, Any]) -> Repo:
    commits = {
        oid: Commit(**{**commit, "files": {path: File(**file) for path, file in commit["files"].items()}})
        for oid, commit in record["commits"].items()
    }
    return Repo(
        **{
            **record,
            "key": RepoKey(**record["key"]),
            "granted": frozenset(record["granted"]),
            "commits": commits,
        }
    )
