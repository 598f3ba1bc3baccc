"""The running server: two listening ports (the API, and the files it redirects to), and the handle that tests hold."""

import asyncio
import contextlib
import queue
import secrets
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from aiohttp import web

from hubserver import (
    blobs,
    gitobjects,
    middleware,
    routes_commit,
    routes_control,
    routes_lfs,
    routes_refs,
    routes_repo,
    routes_resolve,
)
from hubserver.context import HOST, STATE, State
from hubserver.faults import Fault, Faults
from hubserver.gitobjects import RepoKey, RepoType
from hubserver.requestlog import Record, RequestLog
from hubserver.store import Store
from hubserver.tokens import DEFAULT_TOKENS, Token

API_ROUTES = [
    *routes_repo.ROUTES,
    *routes_refs.ROUTES,
    *routes_commit.ROUTES,
    *routes_control.ROUTES,
    *routes_lfs.API_ROUTES,
    *routes_resolve.ROUTES,
]
ANY_ADDRESS = {"0.0.0.0", "::", ""}


@dataclass(kw_only=True, slots=True)
class Hub:
    """A server that runs. Its methods may be called from any thread."""

    url: str
    store: Store
    _state: State

    @property
    def requests(self) -> list[Record]:
        return self._state.log.records()

    def forget_requests(self) -> None:
        self._state.log.clear()

    def fault(
        self,
        match: str,
        *,
        status: int | None = None,
        times: int = 1,
        code: str | None = None,
        headers: Mapping[str, str] | None = None,
        delay_seconds: float = 0,
        cut_after_bytes: int | None = None,
    ) -> None:
        """Make the next *times* requests whose `METHOD /path` matches go wrong; -1 is until `clear_faults`."""
        self._state.faults.add(
            Fault(
                match=match,
                status=status,
                times=times,
                code=code,
                headers=dict(headers or {}),
                delay_seconds=delay_seconds,
                cut_after_bytes=cut_after_bytes,
            )
        )

    def clear_faults(self) -> None:
        self._state.faults.clear()

    def tamper(self, repo_id: str, path: str, *, repo_type: RepoType = "model") -> None:
        """Serve other bytes for a file than those its recorded sha256 is of; the size stays."""
        self._state.faults.tamper(repo_key(repo_id, repo_type), path)

    def untamper(self) -> None:
        self._state.faults.untamper()

    def add_model(self, repo_id: str, files: Mapping[str, bytes], *, private: bool = False) -> str:
        """Put one commit with these files into a model repository, made if it isn't there; return its sha."""
        return self._add(repo_key(repo_id, "model"), files, private=private)

    def add_dataset(self, repo_id: str, files: Mapping[str, bytes], *, private: bool = False) -> str:
        return self._add(repo_key(repo_id, "dataset"), files, private=private)

    def _add(self, key: RepoKey, files: Mapping[str, bytes], *, private: bool) -> str:
        if self.store.get(key) is None:
            self.store.create(key, private=private, author=key.namespace)
        added = {}
        for path, content in files.items():
            sha256, size = blobs.put(self.store.blobs, content), len(content)
            in_lfs = gitobjects.upload_mode(path, size, content[:512]) == "lfs"
            added[path] = gitobjects.lfs_file(sha256, size) if in_lfs else gitobjects.regular_file(content)
        return self.store.commit(key, add=added, title="Add files", author=key.namespace).oid


def repo_key(repo_id: str, repo_type: RepoType = "model") -> RepoKey:
    namespace, slash, name = repo_id.partition("/")
    if not slash:
        raise ValueError(f"{repo_id!r} has no namespace")
    return RepoKey(type=repo_type, namespace=namespace, name=name)


@contextlib.asynccontextmanager
async def serve(
    *,
    host: str = "127.0.0.1",
    port: int = 0,
    root: Path | None = None,
    tokens: Mapping[str, Token] = DEFAULT_TOKENS,
    files_port: int = 0,
    files_url: str | None = None,
    multipart_above_bytes: int = 64 * 1024 * 1024,
    log_file: Path | None = None,
) -> AsyncIterator[Hub]:
    """Run a Hub while the context is open, in memory unless *root* names a folder to keep it in."""
    state = State(
        store=Store(root),
        tokens=tokens,
        faults=Faults(),
        log=RequestLog(log_file),
        link_secret=secrets.token_bytes(32),
        multipart_above_bytes=multipart_above_bytes,
        files_url=files_url,
    )
    state.faults.bind(asyncio.get_running_loop())
    async with contextlib.AsyncExitStack() as stack:
        files = await _listen(stack, _app(state, "files", routes_lfs.FILE_ROUTES), host=host, port=files_port)
        state.files_port = files
        listening = await _listen(stack, _app(state, "api", API_ROUTES), host=host, port=port)
        shown = "127.0.0.1" if host in ANY_ADDRESS else host
        stack.callback(state.faults.clear)
        yield Hub(url=f"http://{shown}:{listening}", store=state.store, _state=state)


def _app(state: State, host: Literal["api", "files"], routes: list[web.RouteDef]) -> web.Application:
    app = web.Application(middlewares=[middleware.observe], client_max_size=2**30)
    app[STATE], app[HOST] = state, host
    app[routes_lfs.PARTS] = {}
    app.add_routes(routes)
    return app


async def _listen(stack: contextlib.AsyncExitStack, app: web.Application, *, host: str, port: int) -> int:
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=1)
    await runner.setup()
    stack.push_async_callback(runner.cleanup)
    site = web.TCPSite(runner, host, port)
    await site.start()
    return int(runner.addresses[0][1])


@contextlib.contextmanager
def running(
    *,
    host: str = "127.0.0.1",
    port: int = 0,
    root: Path | None = None,
    tokens: Mapping[str, Token] = DEFAULT_TOKENS,
    multipart_above_bytes: int = 64 * 1024 * 1024,
) -> Iterator[Hub]:
    """Run a Hub on a thread of its own, for tests whose client blocks."""

    def open_hub() -> contextlib.AbstractAsyncContextManager[Hub]:
        return serve(host=host, port=port, root=root, tokens=tokens, multipart_above_bytes=multipart_above_bytes)

    ready: queue.SimpleQueue[tuple[Hub, Callable[[], object]] | BaseException] = queue.SimpleQueue()
    thread = threading.Thread(target=lambda: asyncio.run(_until_stopped(open_hub, ready)), name="hubserver")
    thread.start()
    try:
        started = ready.get()
        if isinstance(started, BaseException):
            raise started
        hub, stop = started
        try:
            yield hub
        finally:
            stop()
    finally:
        thread.join()


async def _until_stopped(
    open_hub: Callable[[], contextlib.AbstractAsyncContextManager[Hub]],
    ready: "queue.SimpleQueue[tuple[Hub, Callable[[], object]] | BaseException]",
) -> None:
    loop, stopped = asyncio.get_running_loop(), asyncio.Event()
    try:
        async with open_hub() as hub:
            ready.put((hub, lambda: loop.call_soon_threadsafe(stopped.set)))
            await stopped.wait()
    except OSError as error:  # the port is taken: the thread that waits for the server hears it
        ready.put(error)
