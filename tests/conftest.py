"""What the tiers share: one TMPDIR a session, and one control plane for `crd` and `cluster`."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator

import pytest

from localcluster import ControlPlane
from localcluster import control_plane as running_control_plane

TMPDIR = pytest.StashKey[str]()


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """Give the session a TMPDIR of its own: engines and programs killed on purpose leave sockets and files there."""
    if not hasattr(config, "workerinput"):  # the workers of pytest-xdist inherit it
        config.stash[TMPDIR] = os.environ["TMPDIR"] = tempfile.tempdir = tempfile.mkdtemp(prefix="lora-tests-")


@pytest.hookimpl(trylast=True)
def pytest_unconfigure(config: pytest.Config) -> None:
    """Remove it, however the session ended. KEEP=1 leaves it for a look, as it does the cluster of the tests."""
    folder = config.stash.get(TMPDIR, None)
    if folder is not None and not os.environ.get("KEEP"):
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def control_plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    """Return a real control plane without nodes. Whoever uses it keeps to namespaces of their own."""
    with running_control_plane(tmp_path_factory.mktemp("control-plane")) as plane:
        yield plane
