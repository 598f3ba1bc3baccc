"""The apiserver with our CRDs, and one namespace for everything that this tier stores."""

from __future__ import annotations

from pathlib import Path

import pytest

from localcluster import ControlPlane
from support.apiserver import ApiServer

ROOT = Path(__file__).parents[2]
NAMESPACE = "crd-tests"


@pytest.fixture(scope="session")
def api(control_plane: ControlPlane) -> ApiServer:
    """Return the apiserver, with the CRDs established."""
    control_plane.run_kubectl("apply", "--server-side", "-f", str(ROOT / "crds"))
    control_plane.run_kubectl("wait", "--for=condition=Established", "--timeout=120s", "-f", str(ROOT / "crds"))
    server = ApiServer(control_plane)
    server.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}})
    return server
