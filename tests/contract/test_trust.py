"""A Hub whose certificate an authority of the house signed: the real clients reach it with its CA bundle alone."""

from __future__ import annotations

import asyncio
import os
import ssl
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime
from urllib.parse import urlsplit

import pytest

import hubserver
from lora_operator import trust
from lora_operator.progress_certificate import new_authority, server_context

MODEL = "acme/tiny"

# As each program does it: everything is imported before the bundle is looked at, and clients are made after.
OPERATOR = """
import asyncio, sys
from lora_operator import trust
from lora_operator.clients.hub import Hub, Place
trust.extend_from_environment()
print(asyncio.run(Hub(sys.argv[1]).resolve(Place(sys.argv[2]), token=None)).commit)
"""
AGENT = """
import asyncio, sys
from lora_agent import hub
from lora_operator import trust
trust.extend_from_environment()
async def main():
    async with hub.session() as session:
        print((await hub.Hub(session=session, endpoint=sys.argv[1]).base_config(sys.argv[2], token=None)).decode())
asyncio.run(main())
"""
TRAINER = """
import sys
from lora_operator import trust
trust.extend_from_environment()
from huggingface_hub import hf_hub_download
print(open(hf_hub_download(sys.argv[2], "config.json", endpoint=sys.argv[1], cache_dir=sys.argv[3])).read())
"""


@asynccontextmanager
async def over_tls(url: str, context: ssl.SSLContext) -> AsyncIterator[str]:
    """Serve what a server serves in plain, over TLS, and give the URL."""
    there = urlsplit(url)

    async def pipe(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while data := await reader.read(1 << 16):
                writer.write(data)
                await writer.drain()
        writer.close()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        inner_reader, inner_writer = await asyncio.open_connection(there.hostname, there.port)
        await asyncio.gather(pipe(reader, inner_writer), pipe(inner_reader, writer))

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
    try:
        yield f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
        await server.wait_closed()


@pytest.mark.parametrize("program", [OPERATOR, AGENT, TRAINER], ids=["operator", "agent", "trainer"])
async def test_a_hub_of_the_house_is_trusted_with_its_ca_bundle_alone(
    hub: hubserver.Hub, tmp_path_factory: pytest.TempPathFactory, program: str
) -> None:
    commit = hub.add_model(MODEL, {"config.json": b'{"model_type": "llama"}'})
    now = datetime.now(UTC)
    authority = new_authority(now)
    async with over_tls(hub.url, server_context(authority, host="127.0.0.1", now=now)) as url:
        arguments = (url, MODEL, str(tmp_path_factory.mktemp("hub-cache")))
        code, _, errors = await run(program, *arguments, bundle=new_authority(now).certificate)
        assert code != 0
        assert "CERTIFICATE_VERIFY_FAILED" in errors
        code, said, errors = await run(program, *arguments, bundle=authority.certificate)
        assert code == 0, errors
        assert said in {commit, '{"model_type": "llama"}'}


async def run(program: str, *arguments: str, bundle: str) -> tuple[int | None, str, str]:
    """Run a program with a CA bundle; return its exit code and what it said."""
    environment = {
        "PATH": os.environ["PATH"],
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        trust.VARIABLE: bundle,
    }
    command = (sys.executable, "-c", program, *arguments)
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(*command, env=environment, stdout=pipe, stderr=pipe)
    output, errors = await asyncio.wait_for(process.communicate(), timeout=120)
    return process.returncode, output.decode().strip(), errors.decode()
