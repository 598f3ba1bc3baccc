"""`/api`: who am I, and repositories as a whole: create, describe, list, configure, delete."""

import re
from typing import Literal

import pydantic
from aiohttp import web

from hubserver import answers, context, describe, tokens
from hubserver.gitobjects import RepoKey, RepoType
from hubserver.store import ConflictError

REPO = "/api/{type:models|datasets}/{namespace}/{name}"
NAME = re.compile(r"(?!.*(\.\.|--|\.git$))[A-Za-z0-9_][\w.-]{0,95}")


class RepoNamed(pydantic.BaseModel):
    name: str
    organization: str | None = None
    type: RepoType = "model"
    visibility: Literal["private", "public"] | None = None
    private: bool | None = None


class Settings(pydantic.BaseModel):
    visibility: Literal["private", "public"] | None = None
    private: bool | None = None
    gated: Literal["auto", "manual", False] | None = None


class Grant(pydantic.BaseModel):
    user: str


async def whoami(request: web.Request) -> web.Response:
    token = context.caller(request)
    if token is None:
        raise answers.RefusalError(401, "Invalid username or password.")
    return web.json_response(describe.whoami(token))


async def validate_yaml(request: web.Request) -> web.Response:
    """Accept any model card: what the Hub thinks of its fields is no part of this server."""
    await request.read()
    return web.json_response({"errors": [], "warnings": []})


async def create(request: web.Request) -> web.Response:
    wanted = await context.body_of(request, RepoNamed)
    key, author = _owned(request, wanted, action="create a repository")
    if not NAME.fullmatch(key.name):
        raise answers.bad_request(f"Invalid repo name: {key.name!r}")
    url = f"{request.url.origin()}/{key.path}"
    try:
        context.state_of(request).store.create(key, private=bool(_private(wanted)), author=author)
    except ConflictError as conflict:
        raise answers.RefusalError(409, str(conflict), extra={"url": url}) from conflict
    return web.json_response({"url": url, "name": key.id, "id": f"{key.type}-{key.id}"})


async def delete(request: web.Request) -> web.Response:
    key, _ = _owned(request, await context.body_of(request, RepoNamed), action="delete a repository")
    if not context.state_of(request).store.delete(key):
        raise answers.no_such_repo(known_caller=True)
    return web.json_response({})


async def info(request: web.Request) -> web.Response:
    repo = context.repo_of(request)
    commit = context.commit_at(repo, request.match_info.get("rev", "main"))
    return web.json_response(
        describe.repo_info(repo, commit, blobs=request.query.get("blobs") in {"true", "True", "1"})
    )


async def listing(request: web.Request) -> web.Response:
    """List what the caller may see, all of it or one author's."""
    token, author = context.caller(request), request.query.get("author")
    repos = [
        describe.repo_info(repo, repo.commits[repo.branches["main"]], blobs=False)
        for repo in context.state_of(request).store.of_type(context.TYPES[request.match_info["type"]])
        if tokens.may_see(token, repo) and author in {None, repo.key.namespace}
    ]
    return web.json_response(repos)


async def settings(request: web.Request) -> web.Response:
    repo = context.repo_of(request, "write")
    wanted = await context.body_of(request, Settings)
    repo = context.state_of(request).store.configure(repo.key, private=_private(wanted), gated=wanted.gated)
    return web.json_response({"private": repo.private, "gated": repo.gated or False})


async def grant(request: web.Request) -> web.Response:
    repo = context.repo_of(request, "write")
    user = (await context.body_of(request, Grant)).user
    context.state_of(request).store.configure(repo.key, grant=user)
    return web.json_response({})


async def auth_check(request: web.Request) -> web.Response:
    context.repo_of(request, "download")
    if request.match_info.get("write"):
        context.repo_of(request, "write")
    return web.json_response({})


def _private(wanted: RepoNamed | Settings) -> bool | None:
    return wanted.private if wanted.visibility is None else wanted.visibility == "private"


def _owned(request: web.Request, wanted: RepoNamed, *, action: str) -> tuple[RepoKey, str]:
    """Return the repository that is meant and who acts on it; without an organisation it is the caller's own."""
    token = context.caller(request)
    namespace = wanted.organization or (token.user if token else "")
    token = context.writer(request, namespace, action=action)
    return RepoKey(type=wanted.type, namespace=namespace, name=wanted.name), token.user


ROUTES = [
    web.get("/api/whoami-v2", whoami),
    web.post("/api/validate-yaml", validate_yaml),
    web.post("/api/repos/create", create),
    web.delete("/api/repos/delete", delete),
    web.get("/api/{type:models|datasets}", listing),
    web.get(REPO, info),
    web.get(REPO + "/revision/{rev}", info),
    web.put(REPO + "/settings", settings),
    web.get(REPO + "/auth-check", auth_check),
    web.get(REPO + "/auth-check/{write:write}", auth_check),
    web.post(REPO + "/user-access-request/grant", grant),
]
