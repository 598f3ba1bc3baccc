"""Repositories, commits and files in the Hub's own JSON. Pure."""

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

from hubserver import gitobjects
from hubserver.gitobjects import Commit, File, Repo
from hubserver.tokens import Token

Json = dict[str, Any]


def moment(at: int) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%M:%S.000Z")


def whoami(token: Token) -> Json:
    orgs = [
        {"type": "org", "id": f"o-{org}", "name": org, "fullname": org, "roleInOrg": token.role, "isEnterprise": False}
        for org in token.orgs
    ]
    return {
        "type": "user",
        "id": f"u-{token.user}",
        "name": token.user,
        "fullname": token.user,
        "email": None,
        "emailVerified": True,
        "canPay": False,
        "isPro": False,
        "periodEnd": None,
        "orgs": orgs,
        "auth": {
            "type": "access_token",
            "accessToken": {"displayName": f"{token.user}-{token.role}", "role": token.role, "createdAt": moment(0)},
        },
    }


def repo_info(repo: Repo, commit: Commit, *, blobs: bool) -> Json:
    newest = repo.commits[repo.branches.get("main", commit.oid)]
    info: Json = {
        "_id": f"{repo.key.type}-{repo.key.id}",
        "id": repo.key.id,
        "author": repo.key.namespace,
        "sha": commit.oid,
        "lastModified": moment(newest.at),
        "createdAt": moment(repo.created),
        "private": repo.private,
        "gated": repo.gated or False,
        "disabled": False,
        "tags": [],
        "downloads": 0,
        "likes": 0,
        "siblings": [_sibling(path, file, blobs=blobs) for path, file in commit.files.items()],
        "usedStorage": sum(file.size for file in commit.files.values() if file.lfs),
    }
    return info | ({"modelId": repo.key.id} if repo.key.type == "model" else {})


def _sibling(path: str, file: File, *, blobs: bool) -> Json:
    sibling: Json = {"rfilename": path}
    if blobs:
        sibling |= {"blobId": file.oid, "size": file.size}
        if file.lfs:
            pointer = len(gitobjects.lfs_pointer(file.sha256, file.size))
            sibling["lfs"] = {"sha256": file.sha256, "size": file.size, "pointerSize": pointer}
    return sibling


def commit_info(commit: Commit) -> Json:
    return {
        "id": commit.oid,
        "title": commit.title,
        "message": commit.message,
        "date": moment(commit.at),
        "authors": [{"user": commit.author}],
    }


def entries(repo: Repo, commit: Commit, paths: Iterable[str], *, expand: bool) -> list[Json]:
    """Describe the files and folders of *paths* that exist, in that order."""
    folders = gitobjects.folders(commit.files)
    known = [path for path in paths if path in commit.files or (path and path in folders)]
    changed = gitobjects.last_commits(repo.history(commit), known) if expand else {}
    described = []
    for path in known:
        file = commit.files.get(path)
        entry = _file(path, file) if file else _folder(path, folders[path])
        if path in changed:
            last = changed[path]
            entry["lastCommit"] = {"id": last.oid, "title": last.title, "date": moment(last.at)}
        described.append(entry)
    return described


def _folder(path: str, oid: str) -> Json:
    return {"type": "directory", "oid": oid, "size": 0, "path": path}


def _file(path: str, file: File) -> Json:
    entry: Json = {"type": "file", "oid": file.oid, "size": file.size, "path": path}
    if file.lfs:
        pointer = len(gitobjects.lfs_pointer(file.sha256, file.size))
        entry["lfs"] = {"oid": file.sha256, "size": file.size, "pointerSize": pointer}
    return entry


def children(commit: Commit, folder: str, *, recursive: bool) -> list[str] | None:
    """Return the paths in a folder, folders first; None where there is no such folder."""
    folders = gitobjects.folders(commit.files)
    if folder not in folders:
        return None
    inside = [
        path for path in (*sorted(folders), *commit.files) if path and path.startswith(folder + "/" * bool(folder))
    ]
    return inside if recursive else [path for path in inside if path.rpartition("/")[0] == folder]
