"""Around every route: the request log, the faults, and refusals turned into answers."""

from aiohttp import web
from aiohttp.typedefs import Handler

from hubserver import answers, context
from hubserver.context import FAULT, HOST, RECORD, STATE, State
from hubserver.requestlog import Record

CONTROL_PREFIX = "/_test/"


@web.middleware
async def observe(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Log the request and answer it; the control routes are neither logged nor made to fail."""
    if request.path.startswith(CONTROL_PREFIX):
        return await _answer(request, handler)
    state = request.app[STATE]
    record = request[RECORD] = _record(request, state)
    state.log.arrived(record)
    try:
        response = await _with_faults(request, handler)
    except web.HTTPException as error:  # the router's own: no such route, or not with this method
        record.status = error.status
        raise
    else:
        record.status = response.status
        if isinstance(response, web.Response) and request.method != "HEAD":
            record.sent_bytes = response.content_length or 0
        return response
    finally:
        state.log.answered(record)


async def _with_faults(request: web.Request, handler: Handler) -> web.StreamResponse:
    faults = request.app[STATE].faults
    fault = faults.take(f"{request.method} {request.path}")
    if fault is None:
        return await _answer(request, handler)
    request[RECORD].faulted = True
    request[FAULT] = fault
    if fault.delay_seconds > 0:
        await faults.delay(fault.delay_seconds)
    if fault.status is not None:
        await request.read()  # a client that is still sending would see a broken connection, not the answer
        return answers.response_to(
            answers.RefusalError(fault.status, "injected", code=fault.code, headers=fault.headers)
        )
    return await _answer(request, handler)


async def _answer(request: web.Request, handler: Handler) -> web.StreamResponse:
    try:
        return await handler(request)
    except answers.RefusalError as refusal:
        return answers.response_to(refusal)


def _record(request: web.Request, state: State) -> Record:
    token = state.tokens.get(context.secret_of(request) or "")
    return Record(
        host=request.app[HOST],
        method=request.method,
        path=request.path,
        range=request.headers.get("Range"),
        token_sent="Authorization" in request.headers,
        user=token.user if token else None,
        received_bytes=request.content_length or 0,
    )
