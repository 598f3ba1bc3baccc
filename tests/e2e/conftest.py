"""The stage of the main loop: two nodes, our images, a Hub, the chart installed. All of it goes at the end."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from imagebuild.engine import REPOSITORY
from quickstart import install, stage
from quickstart.stage import Stage


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
