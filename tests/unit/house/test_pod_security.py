"""Every container that the operator makes passes the restricted Pod Security Standard, and has a read-only root."""

from __future__ import annotations

from typing import Any

import pytest

from lora_operator.api import LoRATrainingJob
from lora_operator.lora_training_job import trainer_pod
from lora_operator.settings import Settings
from support.injected import injection
from support.objects import make_metadata
from support.samples import training_job

Object = dict[str, Any]

ALLOWED_VOLUMES = {"configMap", "downwardAPI", "emptyDir", "persistentVolumeClaim", "projected", "secret"}


def agent() -> tuple[Object, Object, list[Object]]:
    """Return what an engine's pods get: no pod's security context, the agent's container, volumes."""
    content, _ = injection()
    return {}, content.agent, list(content.volumes)


def trainer() -> tuple[Object, Object, list[Object]]:
    """Return the trainer's pod: its security context, its container, volumes."""
    job = LoRATrainingJob.model_validate(training_job() | {"metadata": make_metadata("support-v1")})
    settings = Settings(progress_url="https://lora-operator.lora-system.svc")
    pod = trainer_pod.pod(job, "support-v1-0", settings=settings, progress_ca="ca")
    [container] = pod["containers"]
    return pod["securityContext"], container, pod["volumes"]


@pytest.fixture(params=[agent, trainer], ids=["agent", "trainer"])
def made(request: pytest.FixtureRequest) -> tuple[Object, Object, list[Object]]:
    """Return the security context of the pod as far as it is ours, a container, and the pod's volumes."""
    parts: tuple[Object, Object, list[Object]] = request.param()
    return parts


def test_a_container_is_restricted(made: tuple[Object, Object, list[Object]]) -> None:
    pod, container, _ = made
    security = pod | container["securityContext"]
    assert security["runAsNonRoot"] is True
    assert security["runAsUser"] > 0
    assert security["allowPrivilegeEscalation"] is False
    assert security["capabilities"] == {"drop": ["ALL"]}
    assert security["seccompProfile"] == {"type": "RuntimeDefault"}
    assert security["readOnlyRootFilesystem"] is True


def test_no_volume_leads_to_the_node(made: tuple[Object, Object, list[Object]]) -> None:
    _, _, volumes = made
    kinds = {kind for volume in volumes for kind in volume if kind != "name"}
    assert kinds <= ALLOWED_VOLUMES


def test_a_trainer_gets_no_token_for_the_apiserver() -> None:
    job = LoRATrainingJob.model_validate(training_job() | {"metadata": make_metadata("support-v1")})
    pod = trainer_pod.pod(job, "support-v1-0", settings=Settings(), progress_ca="")
    assert pod["automountServiceAccountToken"] is False
    assert "hostNetwork" not in pod
