"""`python -m hubserver`: a Hub in a process of its own, for the local cluster and for end-to-end tests."""

import asyncio
import contextlib
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import click

from hubserver import server
from hubserver.tokens import DEFAULT_TOKENS, read_tokens

FILE = click.Path(dir_okay=False, path_type=Path)


@click.command()
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", default=0, help="Port of the API; 0 takes a free one.")
@click.option("--files-port", default=0, help="Port that LFS files are served from; 0 takes a free one.")
@click.option("--files-url", help="Base URL of the file port as clients reach it, where it isn't the API's host name.")
@click.option("--root", type=click.Path(file_okay=False, path_type=Path), help="Folder to keep it all in; else memory.")
@click.option("--tokens", "tokens_file", type=FILE, help='JSON: {"<token>": {"user", "role", "orgs"}}.')
@click.option("--request-log", type=FILE, help="File to append one JSON line a request to.")
@click.option("--pid-file", type=FILE, help="Written once it listens, removed at the end.")
def main(
    *,
    host: str,
    port: int,
    files_port: int,
    files_url: str | None,
    root: Path | None,
    tokens_file: Path | None,
    request_log: Path | None,
    pid_file: Path | None,
) -> None:
    """Serve until told to stop by SIGTERM or Ctrl-C. The first line printed is the URL."""
    tokens = read_tokens(tokens_file) if tokens_file else DEFAULT_TOKENS

    async def run() -> None:
        stop = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        async with server.serve(
            host=host,
            port=port,
            files_port=files_port,
            files_url=files_url,
            root=root,
            tokens=tokens,
            log_file=request_log,
        ) as hub:
            with _pid_in(pid_file):
                click.echo(hub.url)
                await stop.wait()

    asyncio.run(run())


@contextlib.contextmanager
def _pid_in(path: Path | None) -> Iterator[None]:
    if path is None:
        yield
        return
    path.write_text(f"{os.getpid()}\n")
    try:
        yield
    finally:
        path.unlink(missing_ok=True)


if __name__ == "__main__":
    main()
