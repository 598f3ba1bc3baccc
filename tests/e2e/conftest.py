"""The stage of the main loop: two nodes, our images, a Hub, the chart installed, all gone at the end; and lora-train on
this machine, with a Hub that holds what it trains on."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from huggingface_hub import HfApi

from hubserver import Hub
from imagebuild.engine import REPOSITORY
from quickstart import install, stage
from quickstart.stage import Stage
from support import real_trainer
from support.real_trainer import Trainer


@pytest.fixture(scope="package")
def on_stage() -> Iterator[Stage]:
    """Return a stage of the tests' own, beside a cluster that somebody may play with."""
    state_dir = REPOSITORY / ".local" / "e2e"
    try:
        ready = stage.up(state_dir, nodes=2)
        install.install(ready)
        yield ready
    finally:
        # KEEP=1 leaves it up for a look, and for a faster next run.
        if not os.environ.get("KEEP"):
            stage.down(state_dir)


@pytest.fixture(scope="module")
def hub() -> Iterator[Hub]:
    """Return a Hub that has the tiny model and a data set."""
    with real_trainer.stocked_hub() as hub:
        yield hub


@pytest.fixture
def api(hub: Hub) -> HfApi:
    """Return a client of it that may write."""
    return HfApi(endpoint=hub.url, token="hf_write")


@pytest.fixture
def trainer(hub: Hub, tmp_path: Path) -> Iterator[Trainer]:
    """Return a folder for attempts against it."""
    yield Trainer(folder=tmp_path, hub=hub)
    hub.clear_faults()
