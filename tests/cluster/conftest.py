"""The control plane with our CRDs and one operator, for tests that keep to namespaces of their own."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

import hubserver
from hubserver import Hub
from localcluster import ControlPlane, audit
from support.chart import NAMESPACE, USER, Helm, operators_rights
from support.operating import Operator, free_port, running_operator

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def kinds(control_plane: ControlPlane) -> ControlPlane:
    """Return the control plane with our CRDs established."""
    control_plane.run_kubectl("apply", "--server-side", "-f", str(ROOT / "crds"))
    control_plane.run_kubectl("wait", "--for=condition=Established", "--timeout=120s", "-f", str(ROOT / "crds"))
    return control_plane


@pytest.fixture(scope="session")
def hub() -> Iterator[Hub]:
    """Return a Hub that is up. Whoever uses it keeps to repositories of their own."""
    with hubserver.running() as running:
        yield running


@pytest.fixture(scope="session")
def operator(kinds: ControlPlane, hub: Hub, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Operator]:
    """Run one operator for the tier, with the rights that the chart grants it and no others."""
    kinds.run_kubectl("create", "namespace", NAMESPACE)
    rights = operators_rights(Helm(kinds.helm, tmp_path_factory.mktemp("helm")).render())
    kinds.run_kubectl("apply", "-f", "-", stdin="\n---\n".join(map(json.dumps, rights)))
    port = str(free_port())
    settings = {
        "cleanup_seconds": "20",
        "progress_port": port,
        "progress_url": f"https://127.0.0.1:{port}",
        "HF_ENDPOINT": hub.url,
        "HF_HUB_DISABLE_XET": "1",
    }
    with running_operator(kinds, tmp_path_factory.mktemp("operator"), user=USER, groups=(), **settings) as running:
        yield running
    refused = [request for request in audit.requests(kinds.audit_log, user=USER) if not request.allowed]
    assert not refused, "the chart grants the operator too little"
