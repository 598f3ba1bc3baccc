"""Fixtures of the contract tier: a Hub of its own for each test, and a client that speaks LFS to it."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from huggingface_hub import HfApi, constants

import hubserver
from support import agents, fake_engine


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[hubserver.Hub]:
    # Read from the environment when the client is imported, which another test may have done already.
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    with hubserver.running() as hub:
        yield hub


@pytest.fixture
def api(hub: hubserver.Hub) -> HfApi:
    """A client with write access to the organisation `acme`."""
    return HfApi(endpoint=hub.url, token="hf_write")


@pytest.fixture
async def engine() -> AsyncIterator[fake_engine.Engine]:
    async with fake_engine.serve() as engine:
        yield engine


@pytest.fixture
def pod(hub: hubserver.Hub, engine: fake_engine.Engine, tmp_path: Path) -> agents.Pod:
    """A pod of an agent beside that engine, which has the door's Secret and does not run yet."""
    agents.publish_base(hub)
    pod = agents.pod(tmp_path, engine_url=engine.url, hub_url=hub.url)
    pod.mount_secret()
    return pod
