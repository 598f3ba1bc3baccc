"""The Job that a training is frozen to, at a real apiserver: it takes what the operator makes of each way to run."""

from __future__ import annotations

from typing import Any

import pytest

from lora_operator.api.lora_training_job import LoRATrainingJob
from lora_operator.lora_training_job.manifests import Pins, frozen, timed
from lora_operator.settings import Settings
from support.apiserver import ApiServer
from support.samples import training_job, varied

NAMESPACE = "crd-tests"
SETTINGS = Settings(trainer_image="example.org/trainer:1", progress_url="https://lora-operator.lora-system.svc")

WAYS: dict[str, dict[str, Any]] = {
    "as it is": {},
    "checkpoints on a claim": {"checkpoint": {"volume": {"claimName": "kept"}, "gracePeriodSeconds": 600}},
    "checkpoints in the pod": {"checkpoint": {"volume": {"emptyDir": {"sizeLimit": "1Gi"}}}},
    "gated, in two processes": {
        "evaluation": {"fraction": "0.1", "gate": {"against": "Base"}},
        "parallelism": {"procPerNode": 2},
    },
}


@pytest.mark.parametrize("way", WAYS)
def test_the_apiserver_takes_the_job(api: ApiServer, way: str) -> None:
    fields = {f"spec.{name}": value for name, value in WAYS[way].items()} | {"metadata.uid": "1234"}
    job = LoRATrainingJob.model_validate(varied(training_job(namespace=NAMESPACE), fields))
    pins = Pins(base_revision="a" * 40, dataset_revision="b" * 40)
    config_map = frozen(job, None, pins, settings=SETTINGS, progress_ca="the authority")
    api.create(config_map, dry_run=True)
    made = api.create(timed(config_map["data"]["job.json"], {"suspend": False}), dry_run=True)
    template = made["spec"]["template"]["spec"]
    grace = job.spec.checkpoint.grace_period_seconds if job.spec.checkpoint is not None else 45
    assert template["terminationGracePeriodSeconds"] == grace
