"""`/_test`: faults, tampering and the request log, for tests that drive the server from another process."""

import re
from dataclasses import asdict

import pydantic
from aiohttp import web

from hubserver import answers, context
from hubserver.faults import Fault
from hubserver.gitobjects import RepoKey, RepoType

FAULT = pydantic.TypeAdapter(Fault)


class Tamper(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="forbid")

    repo: str = pydantic.Field(pattern="^[^/]+/[^/]+$")
    path: str
    type: RepoType = "model"


async def add_fault(request: web.Request) -> web.Response:
    try:
        fault = FAULT.validate_json(await request.read())
    except pydantic.ValidationError as error:
        raise answers.bad_request(f"Fault not understood: {error}") from error
    context.state_of(request).faults.add(fault)
    return web.json_response({})


async def clear_faults(request: web.Request) -> web.Response:
    context.state_of(request).faults.clear()
    return web.json_response({})


async def tamper(request: web.Request) -> web.Response:
    asked = await context.body_of(request, Tamper)
    namespace, _, name = asked.repo.partition("/")
    context.state_of(request).faults.tamper(RepoKey(type=asked.type, namespace=namespace, name=name), asked.path)
    return web.json_response({})


async def untamper(request: web.Request) -> web.Response:
    context.state_of(request).faults.untamper()
    return web.json_response({})


async def requests(request: web.Request) -> web.Response:
    """List the requests in the order of their arrival; `?match=` takes a fault's kind of pattern."""
    try:
        pattern = re.compile(request.query.get("match", ""))
    except re.error as error:
        raise answers.bad_request(f"match is no regular expression: {error}") from error
    records = context.state_of(request).log.records()
    return web.json_response([asdict(r) for r in records if pattern.search(f"{r.method} {r.path}")])


async def forget_requests(request: web.Request) -> web.Response:
    context.state_of(request).log.clear()
    return web.json_response({})


ROUTES = [
    web.post("/_test/fault", add_fault),
    web.delete("/_test/fault", clear_faults),
    web.post("/_test/tamper", tamper),
    web.delete("/_test/tamper", untamper),
    web.get("/_test/requests", requests),
    web.delete("/_test/requests", forget_requests),
]
