"""`/<repo>/resolve/<revision>/<path>`: regular files from here, LFS files by a signed link to the file host."""

from aiohttp import web

from hubserver import answers, content, context

MODEL = "/{namespace}/{name}"
DATASET = "/{type:datasets}/{namespace}/{name}"


async def resolve(request: web.Request) -> web.StreamResponse:
    repo = context.repo_of(request, "download")
    commit, path = context.commit_at(repo, request.match_info["rev"]), request.match_info["path"]
    file = commit.files.get(path)
    if file is None:
        raise answers.no_such_entry(path, commit=commit.oid)
    state = context.state_of(request)
    tampered = state.faults.is_tampered(repo.key, path)
    if not file.lfs:
        headers = {"ETag": f'"{file.oid}"', "X-Repo-Commit": commit.oid}
        return await content.send(request, state.store.blobs, file.sha256, headers=headers, tampered=tampered)
    link = f"{state.files_base(request)}/_lfs/{file.sha256}?sig={state.signature(f'get {file.sha256}')}"
    return web.Response(
        status=302,
        headers={
            "Location": link + "&tampered=1" * tampered,
            "Accept-Ranges": "bytes",
            "X-Repo-Commit": commit.oid,
            "X-Linked-Size": str(file.size),
            "X-Linked-ETag": f'"{file.sha256}"',
        },
    )


ROUTES = [web.get(prefix + "/resolve/{rev}/{path:.+}", resolve) for prefix in (DATASET, MODEL)]
