"""`/api`: putting files in: what is to go through LFS (preupload), and the commit itself."""

import base64
import binascii
from dataclasses import dataclass, field

import pydantic
from aiohttp import web

from hubserver import answers, blobs, context, gitobjects
from hubserver.blobs import Blobs
from hubserver.gitobjects import Commit, File
from hubserver.routes_repo import REPO
from hubserver.store import StaleParentError, UnknownRevisionError


class Candidate(pydantic.BaseModel):
    path: str
    size: int
    sample: pydantic.Base64Bytes


class Preupload(pydantic.BaseModel):
    files: list[Candidate]


class Value(pydantic.BaseModel):
    """The fields of every kind of line; which of them a line needs depends on its key."""

    summary: str = ""
    description: str = ""
    parent_commit: str | None = pydantic.Field(default=None, alias="parentCommit")
    path: str = ""
    content: str = ""
    oid: str = ""
    size: int | None = None


class Line(pydantic.BaseModel):
    key: str
    value: Value


@dataclass(kw_only=True, slots=True)
class Change:
    title: str = ""
    message: str = ""
    parent: str | None = None
    add: dict[str, File] = field(default_factory=dict)
    delete: list[str] = field(default_factory=list)


async def preupload(request: web.Request) -> web.Response:
    repo = context.repo_of(request, "write")
    head = context.commit_at(repo, request.match_info["rev"])
    candidates = (await context.body_of(request, Preupload)).files
    return web.json_response({"files": [_advice(file, head) for file in candidates], "commitOid": head.oid})


def _advice(candidate: Candidate, head: Commit) -> dict[str, str | bool]:
    """Tell how to send a file, and what is there now, so that the client can leave out what hasn't changed."""
    mode = gitobjects.upload_mode(candidate.path, candidate.size, candidate.sample)
    advice: dict[str, str | bool] = {"path": candidate.path, "uploadMode": mode, "shouldIgnore": False}
    there = head.files.get(candidate.path)
    if there is not None and there.lfs == (mode == "lfs"):
        advice["oid"] = there.sha256 if there.lfs else there.oid
    return advice


async def commit(request: web.Request) -> web.Response:
    repo = context.repo_of(request, "write")
    store, branch, token = context.state_of(request).store, request.match_info["rev"], context.caller(request)
    if request.query.get("create_pr") in {"1", "true"}:
        raise answers.bad_request("This server has no pull requests")
    change = read_change(await request.text(), store.blobs)
    head = context.commit_at(repo, branch)
    for path in change.delete:
        if path not in head.files and not any(file.startswith(path.rstrip("/") + "/") for file in head.files):
            raise answers.no_such_entry(path, commit=head.oid)
    try:
        made = store.commit(
            repo.key,
            branch=branch,
            add=change.add,
            delete=change.delete,
            title=change.title,
            message=change.message,
            parent=change.parent,
            author=token.user if token else "",
        )
    except StaleParentError as error:
        message = "A commit has happened since. Please refresh and try again."
        raise answers.RefusalError(412, message) from error
    except UnknownRevisionError as error:
        raise answers.no_such_revision(branch) from error
    url = f"{request.url.origin()}/{repo.key.path}/commit/{made.oid}"
    return web.json_response({"success": True, "commitOid": made.oid, "commitUrl": url, "hookOutput": ""})


def read_change(body: str, store: Blobs) -> Change:
    """Read the newline-delimited JSON of a commit; content that comes inside it is kept at once."""
    change = Change()
    for text in filter(None, body.splitlines()):
        try:
            line = Line.model_validate_json(text)
        except pydantic.ValidationError as error:
            raise answers.bad_request(f"Line not understood: {error}") from error
        value = line.value
        if line.key == "header":
            change.title, change.message, change.parent = value.summary, value.description, value.parent_commit
            continue
        if not value.path or value.path.startswith("/") or not {"..", ".", ""}.isdisjoint(value.path.split("/")[:-1]):
            raise answers.bad_request(f"Invalid path: {value.path!r}")
        if line.key == "file":
            change.add[value.path] = _inline(value, store)
        elif line.key == "lfsFile":
            change.add[value.path] = _uploaded(value, store)
        elif line.key in {"deletedFile", "deletedFolder"}:
            change.delete.append(value.path)
        else:
            raise answers.bad_request(f"Unknown operation: {line.key!r}")
    return change


def _inline(value: Value, store: Blobs) -> File:
    try:
        content = base64.b64decode(value.content, validate=True)
    except binascii.Error as error:
        raise answers.bad_request(f"{value.path}: content is not base64") from error
    blobs.put(store, content)
    return gitobjects.regular_file(content)


def _uploaded(value: Value, store: Blobs) -> File:
    if not store.has(value.oid):
        raise answers.bad_request(f"{value.path}: the LFS object {value.oid} was not uploaded")
    size = store.size(value.oid)
    if value.size is not None and value.size != size:
        raise answers.bad_request(f"{value.path}: size {value.size} was announced, {size} bytes are there")
    return gitobjects.lfs_file(value.oid, size)


ROUTES = [
    web.post(REPO + "/preupload/{rev}", preupload),
    web.post(REPO + "/commit/{rev}", commit),
]
