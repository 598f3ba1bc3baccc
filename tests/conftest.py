"""What the tiers share: one control plane a session, for `crd` and `cluster`."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from localcluster import ControlPlane
from localcluster import control_plane as running_control_plane


@pytest.fixture(scope="session")
def control_plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    """Return a real control plane without nodes. Whoever uses it keeps to namespaces of their own."""
    with running_control_plane(tmp_path_factory.mktemp("control-plane")) as plane:
        yield plane
