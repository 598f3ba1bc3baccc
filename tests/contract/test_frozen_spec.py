"""What the operator freezes, the trainer reads: every field of a job's spec, and the engine beside engineRef."""

from __future__ import annotations

import json

import pytest

from lora_operator.api import LoRAEngine, LoRATrainingJob
from lora_operator.engine_terms import limits_of
from lora_operator.lora_training_job import manifests
from lora_trainer import servable, spec
from support import samples

FULL = {
    "spec.baseModel.tokenSecretRef": {"name": "hf", "key": "token"},
    "spec.dataset.source": {"hub": {"repo": "acme/talk", "config": "default"}},
    "spec.lora": {"r": 8, "targetModules": ["q_proj"], "loraDropout": "0.05"},
    "spec.training": {
        "maxSteps": 20,
        "learningRate": "1e-2",
        "extraArgs": {"adam_beta2": "0.95", "neftune_noise_alpha": 5},
    },
    "spec.engineRef": {"name": "vllm-llama"},
    "spec.output.adapter": {"servedName": "support", "tenants": [{"namespace": "team-a"}]},
    "spec.resources": {"limits": {"nvidia.com/gpu": 1, "memory": "16Gi"}},
    "spec.nodeSelector": {"gpu": "l4"},
    "spec.tolerations": [{"key": "gpu", "operator": "Exists"}],
    "spec.serviceAccountName": "trainer",
    "spec.ttlSecondsAfterFinished": 60,
}


@pytest.mark.parametrize("fields", [{}, FULL], ids=["the smallest job", "a job that says everything"])
def test_a_frozen_spec_is_one_that_the_trainer_takes(fields: dict[str, object]) -> None:
    job = LoRATrainingJob.model_validate(samples.varied(samples.training_job(), fields))
    status = {"flags": {"maxLoraRank": 16, "dtype": "auto"}, "engine": {"version": "0.32.0", "device": "cuda"}}
    engine = LoRAEngine.model_validate(samples.engine() | {"status": status})
    limits = limits_of(engine, base={"torch_dtype": "bfloat16"})
    pins = manifests.Pins(base_revision="b" * 40, dataset_revision="d" * 40)
    read = spec.parse(json.dumps(manifests.frozen_spec(job, limits, pins)))
    assert read.base_model.revision == "b" * 40
    assert read.lora.model_dump() == job.spec.lora.model_dump()
    assert read.training == job.spec.training
    assert read.engine == spec.Engine(type="VLLM", version="0.32.0", device="cuda", max_lora_rank=16, dtype="bfloat16")
    servable.check_config(read)
