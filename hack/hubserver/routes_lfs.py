"""LFS: the batch call and its verification on the API's host; content, in one piece or in parts, on the file host.

The links to the file host are signed and carry no token; as S3 does, it refuses a request that brings one along.
"""

import hashlib
import itertools
import re

import pydantic
from aiohttp import web

from hubserver import answers, blobs, content, context
from hubserver.context import State
from hubserver.gitobjects import Repo
from hubserver.routes_resolve import DATASET, MODEL

PART_BYTES = 1_000_000
SHA256 = re.compile(r"[0-9a-f]{64}")
PARTS: web.AppKey[dict[tuple[str, int], tuple[str, str]]] = web.AppKey("parts")


class Pointer(pydantic.BaseModel):
    oid: str = pydantic.Field(pattern=f"^{SHA256.pattern}$")
    size: int = pydantic.Field(ge=0)


class Batch(pydantic.BaseModel):
    operation: str
    transfers: list[str] = ["basic"]
    objects: list[Pointer]


class Part(pydantic.BaseModel):
    part_number: int = pydantic.Field(alias="partNumber")
    etag: str


class Complete(pydantic.BaseModel):
    oid: str
    parts: list[Part]


async def batch(request: web.Request) -> web.Response:
    repo, asked = context.repo_of(request, "write"), await context.body_of(request, Batch)
    if asked.operation != "upload":
        raise answers.bad_request("Only uploads go through the batch call; download with resolve")
    state = context.state_of(request)
    in_parts = "multipart" in asked.transfers and any(o.size > state.multipart_above_bytes for o in asked.objects)
    described = []
    for pointer in asked.objects:
        answer: dict[str, object] = {"oid": pointer.oid, "size": pointer.size, "authenticated": True}
        if not state.store.blobs.has(pointer.oid):
            parts = in_parts and pointer.size > state.multipart_above_bytes
            answer["actions"] = _actions(request, repo, pointer, parts=parts)
        described.append(answer)
    return web.json_response(
        {"transfer": "multipart" if in_parts else "basic", "objects": described},
        content_type="application/vnd.git-lfs+json",
    )


def _actions(request: web.Request, repo: Repo, pointer: Pointer, *, parts: bool) -> dict[str, object]:
    state = context.state_of(request)
    base = f"{state.files_base(request)}/_lfs"
    verify = f"{request.url.origin()}/{repo.key.path}.git/info/lfs/objects/verify"
    upload: dict[str, object]
    if parts:
        numbers = range(1, -(-pointer.size // PART_BYTES) + 1)
        links = {
            f"{n:05d}": f"{base}/part/{pointer.oid}/{n}?sig={state.signature(f'part {pointer.oid} {n}')}"
            for n in numbers
        }
        href = f"{base}/complete/{pointer.oid}?sig={state.signature(f'complete {pointer.oid}')}"
        upload = {"href": href, "header": {"chunk_size": str(PART_BYTES), **links}}
    else:
        upload = {"href": f"{base}/{pointer.oid}?sig={state.signature(f'put {pointer.oid}')}"}
    return {"upload": upload, "verify": {"href": verify, "header": {}}}


async def verify(request: web.Request) -> web.Response:
    context.repo_of(request, "write")
    pointer, store = await context.body_of(request, Pointer), context.state_of(request).store
    if not store.blobs.has(pointer.oid) or store.blobs.size(pointer.oid) != pointer.size:
        raise answers.RefusalError(404, f"LFS object {pointer.oid} of {pointer.size} bytes is not here")
    return web.json_response({})


async def put_object(request: web.Request) -> web.Response:
    oid = request.match_info["oid"]
    state = _signed(request, f"put {oid}")
    _, etag = await _keep(request, state, expected=oid)
    return web.Response(headers={"ETag": f'"{etag}"'})


async def put_part(request: web.Request) -> web.Response:
    oid, number = request.match_info["oid"], int(request.match_info["number"])
    state = _signed(request, f"part {oid} {number}")
    sha256, etag = await _keep(request, state, expected=None)
    request.app[PARTS][oid, number] = (sha256, etag)
    return web.Response(headers={"ETag": f'"{etag}"'})


async def complete(request: web.Request) -> web.Response:
    """Join the parts; what they make must be what was announced."""
    oid = request.match_info["oid"]
    state, asked = _signed(request, f"complete {oid}"), await context.body_of(request, Complete)
    parts = []
    for number, part in enumerate(sorted(asked.parts, key=lambda part: part.part_number), start=1):
        kept = request.app[PARTS].get((oid, part.part_number))
        if kept is None or part.part_number != number or part.etag.strip('"') != kept[1]:
            raise answers.bad_request(f"Part {part.part_number} was not uploaded, or its ETag is another's")
        parts.append(kept[0])
    ingest = state.store.blobs.ingest()
    for chunk in itertools.chain.from_iterable(state.store.blobs.read(sha256) for sha256 in parts):
        ingest.write(chunk)
    _finish(ingest, expected=oid)
    return web.json_response({})


async def get_object(request: web.Request) -> web.StreamResponse:
    oid, tampered = request.match_info["oid"], "tampered" in request.query
    state = _signed(request, f"get {oid}")
    if not state.store.blobs.has(oid):
        raise answers.RefusalError(404, "No such object")
    return await content.send(request, state.store.blobs, oid, headers={"ETag": f'"{oid}"'}, tampered=tampered)


def _signed(request: web.Request, purpose: str) -> State:
    state = context.state_of(request)
    if "Authorization" in request.headers:
        raise answers.bad_request("Only one auth mechanism allowed: the link is signed already")
    if request.query.get("sig") != state.signature(purpose):
        raise answers.RefusalError(403, "The link's signature is not valid")
    return state


async def _keep(request: web.Request, state: State, *, expected: str | None) -> tuple[str, str]:
    """Stream the body into the blob store; return its sha256 and the ETag that S3 would give it."""
    ingest, md5 = state.store.blobs.ingest(), hashlib.md5(usedforsecurity=False)
    try:
        async for chunk in request.content.iter_chunked(blobs.CHUNK_BYTES):
            ingest.write(chunk)
            md5.update(chunk)
    except BaseException:
        ingest.abort()
        raise
    return _finish(ingest, expected=expected), md5.hexdigest()


def _finish(ingest: blobs.Ingest, *, expected: str | None) -> str:
    try:
        return ingest.finish(expected=expected)
    except blobs.ContentMismatchError as error:
        raise answers.bad_request(str(error)) from error


API_ROUTES = [
    web.post(prefix + ".git/info/lfs/objects/" + call, handler)
    for prefix in (DATASET, MODEL)
    for call, handler in (("batch", batch), ("verify", verify))
]
FILE_ROUTES = [
    web.put("/_lfs/part/{oid:[0-9a-f]{64}}/{number:[0-9]+}", put_part),
    web.post("/_lfs/complete/{oid:[0-9a-f]{64}}", complete),
    web.put("/_lfs/{oid:[0-9a-f]{64}}", put_object),
    web.get("/_lfs/{oid:[0-9a-f]{64}}", get_object),
]
