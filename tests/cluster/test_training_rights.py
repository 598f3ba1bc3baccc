"""The whole way of a training with the rights that the chart grants, and no others."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from hubserver import Hub
from localcluster import ControlPlane, audit, control_plane
from support.job_actor import publishing
from support.operating import running_operator
from support.training_namespace import Trainings

ROOT = Path(__file__).parents[2]
NAMESPACE = "lora-system"
USER = f"system:serviceaccount:{NAMESPACE}:lora-operator"


@pytest.fixture
def plane(tmp_path: Path) -> Iterator[ControlPlane]:
    """Return a control plane of its own: an operator that may do everything would leave this one little to do."""
    with control_plane(tmp_path / "plane") as running:
        running.run_kubectl("create", "namespace", NAMESPACE)
        running.run_kubectl("apply", "--server-side", "-f", str(ROOT / "crds"))
        running.run_kubectl("wait", "--for=condition=Established", "--timeout=120s", "-f", str(ROOT / "crds"))
        running.run_kubectl("apply", "-f", "-", stdin=_rights(running))
        yield running


def test_a_training_needs_no_more_rights_than_the_chart_grants(plane: ControlPlane, hub: Hub, tmp_path: Path) -> None:
    settings = {
        "KUBECONFIG": str(plane.kubeconfig_for_service_account(NAMESPACE, "lora-operator")),
        "HF_ENDPOINT": hub.url,
        "HF_HUB_DISABLE_XET": "1",
        "progress_url": "https://127.0.0.1",
    }
    with running_operator(plane, tmp_path / "operator", **settings):
        trainings = Trainings(plane, hub, "team-a")
        trainings.prepare()
        trainings.apply(trainings.job("lawful", output__adapter={"name": "lawful"}, ttlSecondsAfterFinished=3600))
        commit = hub.add_model("acme/lawful", {"adapter_config.json": b"{}"})
        trainings.actor.end(trainings.pod("lawful"), publishing("acme/lawful", commit))
        trainings.until("lawful", "Published")
        assert trainings.events("lawful")

    refused = [one for one in audit.requests(plane.audit_log, user=USER) if one.code in {401, 403}]
    assert refused == []
    assert audit.writes(plane.audit_log, user=USER)


def _rights(plane: ControlPlane) -> str:
    shown = ("rbac", "serviceaccount")
    parts = [word for name in shown for word in ("--show-only", f"templates/{name}.yaml")]
    command = [plane.helm, "template", "lora-operator", ROOT / "charts/lora-operator", "--namespace", NAMESPACE, *parts]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout
