"""`/api`: what a repository's names point to: branches, tags, the list of commits, the tree of one."""

import pydantic
from aiohttp import web

from hubserver import answers, context, describe
from hubserver.routes_repo import REPO
from hubserver.store import ConflictError, UnknownRevisionError

TRUE = {"true", "True", "1"}


class Tag(pydantic.BaseModel):
    tag: str = pydantic.Field(min_length=1)


class Branch(pydantic.BaseModel):
    starting_point: str = pydantic.Field(default="main", alias="startingPoint")


async def refs(request: web.Request) -> web.Response:
    repo = context.repo_of(request)

    def listed(kind: str, names: dict[str, str]) -> list[describe.Json]:
        return [{"name": n, "ref": f"refs/{kind}/{n}", "targetCommit": oid} for n, oid in names.items()]

    return web.json_response(
        {
            "branches": listed("heads", dict(repo.branches)),
            "tags": listed("tags", dict(repo.tags)),
            "converts": [],
            "pullRequests": [],
        }
    )


async def commits(request: web.Request) -> web.Response:
    repo = context.repo_of(request)
    history = repo.history(context.commit_at(repo, request.match_info["rev"]))
    return _page(request, [describe.commit_info(commit) for commit in history], most=50)


async def tree(request: web.Request) -> web.Response:
    repo = context.repo_of(request)
    commit = context.commit_at(repo, request.match_info["rev"])
    folder, expand = request.match_info.get("path", "").strip("/"), request.query.get("expand") in TRUE
    inside = describe.children(commit, folder, recursive=request.query.get("recursive") in TRUE)
    if inside is None:
        raise answers.no_such_entry(folder, commit=commit.oid)
    return _page(request, describe.entries(repo, commit, inside, expand=expand), most=50 if expand else 1000)


async def paths_info(request: web.Request) -> web.Response:
    """Describe the paths that exist and leave out the others; the body is a form or JSON."""
    repo = context.repo_of(request)
    commit = context.commit_at(repo, request.match_info["rev"])
    if request.content_type == "application/json":
        asked = await context.body_of(request, PathsAsked)
        paths, expand = asked.paths, asked.expand
    else:
        form = await request.post()
        paths = [str(path) for path in form.getall("paths", [])]
        expand = form.get("expand") in TRUE
    return web.json_response(describe.entries(repo, commit, [path.strip("/") for path in paths], expand=expand))


class PathsAsked(pydantic.BaseModel):
    paths: list[str]
    expand: bool = False


async def create_tag(request: web.Request) -> web.Response:
    repo = context.repo_of(request, "write")
    tag = (await context.body_of(request, Tag)).tag
    revision = request.match_info["rev"]
    try:
        context.state_of(request).store.set_ref(repo.key, "tags", tag, revision=revision)
    except ConflictError as conflict:
        raise answers.RefusalError(409, str(conflict)) from conflict
    except UnknownRevisionError as error:
        raise answers.no_such_revision(revision) from error
    return web.json_response({})


async def create_branch(request: web.Request) -> web.Response:
    repo = context.repo_of(request, "write")
    start = (await context.body_of(request, Branch)).starting_point
    try:
        context.state_of(request).store.set_ref(repo.key, "branches", request.match_info["rev"], revision=start)
    except ConflictError as conflict:
        raise answers.RefusalError(409, str(conflict)) from conflict
    except UnknownRevisionError as error:
        raise answers.no_such_revision(start) from error
    return web.json_response({})


async def delete_ref(request: web.Request) -> web.Response:
    repo = context.repo_of(request, "write")
    kind, name = request.match_info["kind"], request.match_info["rev"]
    if kind == "branch" and name == "main":
        raise answers.RefusalError(403, "Cannot delete the main branch")
    try:
        context.state_of(request).store.delete_ref(repo.key, "tags" if kind == "tag" else "branches", name)
    except UnknownRevisionError as error:
        raise answers.no_such_revision(name) from error
    return web.json_response({})


def _page(request: web.Request, items: list[describe.Json], *, most: int) -> web.Response:
    """Answer one page, and say in a `Link` header where the next one is."""
    try:
        start, limit = int(request.query.get("cursor", 0)), min(most, int(request.query.get("limit", most)))
    except ValueError as error:
        raise answers.bad_request("cursor and limit are numbers") from error
    headers = {}
    if start + limit < len(items):
        following = request.url.update_query(cursor=start + limit)
        headers["Link"] = f'<{following}>; rel="next"'
    return web.json_response(items[start : start + limit], headers=headers)


ROUTES = [
    web.get(REPO + "/refs", refs),
    web.get(REPO + "/commits/{rev}", commits),
    web.get(REPO + "/tree/{rev}", tree),
    web.get(REPO + "/tree/{rev}/{path:.*}", tree),
    web.post(REPO + "/paths-info/{rev}", paths_info),
    web.post(REPO + "/tag/{rev}", create_tag),
    web.post(REPO + "/branch/{rev}", create_branch),
    web.delete(REPO + "/{kind:tag|branch}/{rev}", delete_ref),
]
