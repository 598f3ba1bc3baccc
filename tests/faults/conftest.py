"""One control plane with our CRDs and one Hub; every test runs operators of its own, for a namespace of its own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

import hubserver
from localcluster import ControlPlane
from support.crashing import Ground

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def ground(control_plane: ControlPlane, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ground]:
    """Return what all runs share."""
    control_plane.run_kubectl("apply", "--server-side", "-f", str(ROOT / "crds"))
    control_plane.run_kubectl("wait", "--for=condition=Established", "--timeout=120s", "-f", str(ROOT / "crds"))
    with hubserver.running() as hub:
        yield Ground(control_plane, hub, tmp_path_factory.mktemp("runs"))
