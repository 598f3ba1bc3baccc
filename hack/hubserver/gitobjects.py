"""Repositories as data: files, commits, and the git names (sha1) and LFS names (sha256) that clients compare.

Pure: no I/O and no clock. `store.py` keeps these values, the routes turn them into answers.
"""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

RepoType = Literal["model", "dataset"]

LFS_SUFFIXES = (
    *(".safetensors", ".bin", ".pt", ".pth", ".ckpt", ".onnx", ".gguf", ".npy", ".npz", ".h5", ".msgpack", ".pkl"),
    *(".parquet", ".arrow", ".model", ".gz", ".zip", ".tar", ".tgz"),
)
GITATTRIBUTES = "".join(f"*{suffix} filter=lfs diff=lfs merge=lfs -text\n" for suffix in LFS_SUFFIXES).encode()
REGULAR_FILE_LIMIT_BYTES = 10 * 1024 * 1024


@dataclass(frozen=True, kw_only=True, slots=True, order=True)
class RepoKey:
    type: RepoType
    namespace: str
    name: str

    @property
    def id(self) -> str:
        return f"{self.namespace}/{self.name}"

    @property
    def path(self) -> str:
        """The path of its page: data sets live under a prefix, models at the root."""
        return f"datasets/{self.id}" if self.type == "dataset" else self.id


@dataclass(frozen=True, kw_only=True, slots=True)
class File:
    oid: str  # git's blob name: of the content, or of the LFS pointer
    size: int
    sha256: str  # of the content, also for regular files: the key in the blob store
    lfs: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class Commit:
    oid: str
    parent: str | None
    title: str
    message: str
    author: str
    at: int  # seconds since the epoch
    files: Mapping[str, File]


@dataclass(frozen=True, kw_only=True, slots=True)
class Repo:
    key: RepoKey
    private: bool
    gated: Literal["auto", "manual"] | None = None
    granted: frozenset[str] = frozenset()
    created: int
    commits: Mapping[str, Commit] = field(default_factory=dict)
    branches: Mapping[str, str] = field(default_factory=dict)
    tags: Mapping[str, str] = field(default_factory=dict)

    def resolve(self, revision: str) -> Commit | None:
        """Return the commit that a branch, a tag, a full ref or a commit's name means."""
        for name, refs in (
            (revision, self.branches),
            (revision.removeprefix("refs/heads/"), self.branches),
            (revision, self.tags),
            (revision.removeprefix("refs/tags/"), self.tags),
        ):
            if name in refs:
                return self.commits[refs[name]]
        return self.commits.get(revision)

    def history(self, commit: Commit) -> list[Commit]:
        """Return the commit and its ancestors, newest first."""
        chain = [commit]
        while parent := chain[-1].parent:
            chain.append(self.commits[parent])
        return chain

    def with_commit(self, branch: str, commit: Commit) -> "Repo":
        return replace(
            self,
            commits={**self.commits, commit.oid: commit},
            branches={**self.branches, branch: commit.oid},
        )


def _git_object(kind: str, body: bytes) -> str:
    return hashlib.sha1(f"{kind} {len(body)}\0".encode() + body, usedforsecurity=False).hexdigest()


def blob_oid(content: bytes) -> str:
    return _git_object("blob", content)


def lfs_pointer(sha256: str, size: int) -> bytes:
    return f"version https://git-lfs.github.com/spec/v1\noid sha256:{sha256}\nsize {size}\n".encode()


def regular_file(content: bytes) -> File:
    sha256 = hashlib.sha256(content).hexdigest()
    return File(oid=blob_oid(content), size=len(content), sha256=sha256, lfs=False)


def lfs_file(sha256: str, size: int) -> File:
    return File(oid=blob_oid(lfs_pointer(sha256, size)), size=size, sha256=sha256, lfs=True)


def upload_mode(path: str, size: int, sample: bytes) -> Literal["lfs", "regular"]:
    """Decide as the Hub does: by the attributes it writes into new repositories, by size, and by what isn't text."""
    if path.endswith(LFS_SUFFIXES) or size > REGULAR_FILE_LIMIT_BYTES or b"\0" in sample:
        return "lfs"
    try:
        # The sample may end in the middle of a character, so its last three bytes decide nothing.
        sample.decode()
    except UnicodeDecodeError as error:
        return "regular" if error.start >= len(sample) - 3 and size > len(sample) else "lfs"
    return "regular"


def folders(files: Mapping[str, File]) -> dict[str, str]:
    """Return every folder's path with its git tree name; the root is the empty path."""
    trees: dict[str, dict[str, tuple[str, str]]] = {"": {}}
    for path, file in files.items():
        parts = path.split("/")
        for depth in range(1, len(parts)):
            trees.setdefault("/".join(parts[:depth]), {})
        trees["/".join(parts[:-1])][parts[-1]] = ("100644", file.oid)
    oids: dict[str, str] = {}
    for folder in sorted(trees, key=lambda path: -(path.count("/") + bool(path))):
        entries = trees[folder]
        ordered = sorted(entries, key=lambda name: name + "/" * (entries[name][0] == "40000"))
        body = b"".join(f"{entries[n][0]} {n}\0".encode() + bytes.fromhex(entries[n][1]) for n in ordered)
        oids[folder] = _git_object("tree", body)
        if folder:
            parent, _, name = folder.rpartition("/")
            trees[parent][name] = ("40000", oids[folder])
    return oids


def commit_of(
    files: Mapping[str, File], *, parent: str | None, title: str, message: str = "", author: str, at: int
) -> Commit:
    """Name a commit as git would, so that the same content in the same place has the same name."""
    lines = [f"tree {folders(files)['']}"]
    lines += [f"parent {parent}"] if parent else []
    lines += [f"{role} {author} <{author}@users.noreply> {at} +0000" for role in ("author", "committer")]
    body = "\n".join(lines) + f"\n\n{title}\n" + (f"\n{message}\n" if message else "")
    return Commit(
        oid=_git_object("commit", body.encode()),
        parent=parent,
        title=title,
        message=message,
        author=author,
        at=at,
        files=dict(sorted(files.items())),
    )


def last_commits(history: Iterable[Commit], paths: Iterable[str]) -> dict[str, Commit]:
    """Return for each file or folder the newest commit that changed it; *history* is newest first."""
    chain = list(history)
    found: dict[str, Commit] = {}
    for path in paths:
        for commit, older in zip(chain, [*chain[1:], None], strict=True):
            if older is None or _entry(commit, path) != _entry(older, path):
                found[path] = commit
                break
    return found


def _entry(commit: Commit, path: str) -> dict[str, str]:
    return {p: file.oid for p, file in commit.files.items() if p == path or p.startswith(path + "/")}
