"""All repositories, and the changes that can be made to them; kept on disk when given a folder.

One JSON file a repository (`repos/<type>/<namespace>/<name>.json`), replaced by rename after each change;
content lies in `blobs/`. Safe to call from the server's thread and a test's alike.
"""

import json
import os
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

from hubserver import blobs, gitobjects, records
from hubserver.gitobjects import Commit, File, Repo, RepoKey, RepoType


class ConflictError(Exception):
    """What was to be made is there already."""


class StaleParentError(Exception):
    """The branch moved on since the caller looked."""


class UnknownRevisionError(Exception):
    """No branch, tag or commit has that name."""


class Store:
    def __init__(self, root: Path | None = None, *, now: Callable[[], float] = time.time) -> None:
        self._now = now
        self._lock = threading.RLock()
        self._root = root
        self.blobs: blobs.Blobs = blobs.MemoryBlobs() if root is None else blobs.DiskBlobs(root / "blobs")
        self._repos: dict[RepoKey, Repo] = {}
        if root is not None:
            for path in (root / "repos").rglob("*.json"):
                repo = records.load(json.loads(path.read_text()))
                self._repos[repo.key] = repo

    def get(self, key: RepoKey) -> Repo | None:
        return self._repos.get(key)

    def of_type(self, repo_type: RepoType) -> list[Repo]:
        return [self._repos[key] for key in sorted(self._repos) if key.type == repo_type]

    def create(self, key: RepoKey, *, private: bool = False, author: str) -> Repo:
        with self._lock:
            if key in self._repos:
                raise ConflictError(f"You already created this {key.type} repo")
            content = gitobjects.GITATTRIBUTES
            blobs.put(self.blobs, content)
            first = gitobjects.commit_of(
                {".gitattributes": gitobjects.regular_file(content)},
                parent=None,
                title="initial commit",
                author=author,
                at=int(self._now()),
            )
            repo = Repo(key=key, private=private, created=first.at).with_commit("main", first)
            return self._save(repo)

    def delete(self, key: RepoKey) -> bool:
        with self._lock:
            if self._repos.pop(key, None) is None:
                return False
            if self._root is not None:
                self._path(key).unlink()
            return True

    def configure(
        self,
        key: RepoKey,
        *,
        private: bool | None = None,
        gated: Literal["auto", "manual", False] | None = None,
        grant: str | None = None,
    ) -> Repo:
        """Change what is given and leave the rest."""
        with self._lock:
            repo = self._repos[key]
            if private is not None:
                repo = replace(repo, private=private)
            if gated is not None:
                repo = replace(repo, gated=gated or None)
            if grant is not None:
                repo = replace(repo, granted=repo.granted | {grant})
            return self._save(repo)

    def commit(
        self,
        key: RepoKey,
        *,
        branch: str = "main",
        add: Mapping[str, File] | None = None,
        delete: Sequence[str] = (),
        title: str,
        message: str = "",
        author: str,
        parent: str | None = None,
    ) -> Commit:
        """Put one commit on a branch; a change that changes nothing returns the commit that is there."""
        with self._lock:
            repo = self._repos[key]
            head = repo.commits[self._branch(repo, branch)]
            if parent is not None and parent != head.oid:
                raise StaleParentError
            kept = {path: file for path, file in head.files.items() if not _covered(path, delete)}
            files = {**kept, **(add or {})}
            if files == head.files:
                return head
            made = gitobjects.commit_of(
                files, parent=head.oid, title=title, message=message, author=author, at=int(self._now())
            )
            self._save(repo.with_commit(branch, made))
            return made

    def set_ref(self, key: RepoKey, kind: Literal["branches", "tags"], name: str, *, revision: str) -> None:
        with self._lock:
            repo = self._repos[key]
            refs = repo.branches if kind == "branches" else repo.tags
            if name in refs:
                raise ConflictError(
                    "Tag reference exists already" if kind == "tags" else f"Reference already exists: refs/heads/{name}"
                )
            target = repo.resolve(revision)
            if target is None:
                raise UnknownRevisionError(revision)
            self._save(_with_refs(repo, kind, {**refs, name: target.oid}))

    def delete_ref(self, key: RepoKey, kind: Literal["branches", "tags"], name: str) -> None:
        with self._lock:
            repo = self._repos[key]
            refs = dict(repo.branches if kind == "branches" else repo.tags)
            if refs.pop(name, None) is None:
                raise UnknownRevisionError(name)
            self._save(_with_refs(repo, kind, refs))

    def _branch(self, repo: Repo, branch: str) -> str:
        name = branch.removeprefix("refs/heads/")
        if name not in repo.branches:
            raise UnknownRevisionError(branch)
        return repo.branches[name]

    def _path(self, key: RepoKey) -> Path:
        if self._root is None:
            raise RuntimeError("a store in memory has no files")
        return self._root / "repos" / key.type / key.namespace / f"{key.name}.json"

    def _save(self, repo: Repo) -> Repo:
        if self._root is not None:
            path = self._path(repo.key)
            path.parent.mkdir(parents=True, exist_ok=True)
            partial = path.with_suffix(".partial")
            with partial.open("w") as file:
                json.dump(records.dump(repo), file)
                file.flush()
                os.fsync(file.fileno())
            partial.replace(path)
        self._repos[repo.key] = repo
        return repo


def _with_refs(repo: Repo, kind: Literal["branches", "tags"], refs: Mapping[str, str]) -> Repo:
    return replace(repo, branches=refs) if kind == "branches" else replace(repo, tags=refs)


def _covered(path: str, deleted: Sequence[str]) -> bool:
    return any(path == gone or path.startswith(gone.rstrip("/") + "/") for gone in deleted)
