"""Fixtures of the contract tier: a Hub of its own for each test, and a client that speaks LFS to it."""

from collections.abc import Iterator

import pytest
from huggingface_hub import HfApi, constants

import hubserver


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
