"""Every rule of the CRDs, at a real apiserver: one object that it takes, and one that it refuses with the reason."""

from __future__ import annotations

from typing import Any

import pytest

from lora_operator.api import KINDS
from support.apiserver import ApiServer, RefusedError
from support.run_rules import RUN_RULES
from support.samples import ABSENT, adapter, engine, training_job, varied
from support.training_rules import TRAINING_RULES

NAMESPACE = "crd-tests"

ENGINE = engine(namespace=NAMESPACE)
ADAPTER = adapter(namespace=NAMESPACE)
JOB = training_job(namespace=NAMESPACE)
ENGINE_REF = {"name": "vllm-llama"}
TOKEN = {"name": "hf", "key": "token"}

# What is varied, fields of an object that is taken, fields of one that is refused, and what the refusal names.
RULES = [
    pytest.param(ENGINE, {"metadata.name": "e" * 63}, {"metadata.name": "e" * 64}, "63 characters", id="engine: name"),
    pytest.param(
        ADAPTER, {"metadata.name": "a" * 63}, {"metadata.name": "a" * 64}, "63 characters", id="adapter: name"
    ),
    pytest.param(JOB, {"metadata.name": "j" * 63}, {"metadata.name": "j" * 64}, "63 characters", id="job: name"),
    pytest.param(ENGINE, {"spec.type": "VLLM"}, {"spec.type": "TGI"}, "spec.type", id="engine: type"),
    pytest.param(
        ENGINE,
        {"spec.targetRef.kind": "Deployment"},
        {"spec.targetRef.kind": "StatefulSet"},
        "spec.targetRef.kind",
        id="engine: only a Deployment",
    ),
    pytest.param(ENGINE, {}, {"spec.targetRef": ABSENT}, "spec.targetRef", id="engine: a target is needed"),
    pytest.param(
        ENGINE,
        {"spec.allowedNamespaces": {"from": "Selector", "selector": {"matchLabels": {"team": "a"}}}},
        {"spec.allowedNamespaces": {"from": "Selector"}},
        "selector belongs to from: Selector",
        id="engine: from Selector needs one",
    ),
    pytest.param(
        ENGINE,
        {"spec.allowedNamespaces": {"from": "All"}},
        {"spec.allowedNamespaces": {"from": "All", "selector": {}}},
        "selector belongs to from: Selector",
        id="engine: from All takes no selector",
    ),
    pytest.param(
        ENGINE,
        {"spec.flags": {"maxLoraRank": 320, "maxLoras": 4, "maxCpuLoras": 16}},
        {"spec.flags": {"maxLoraRank": 17}},
        "spec.flags.maxLoraRank",
        id="engine: vLLM's own ranks",
    ),
    pytest.param(
        ENGINE,
        {"spec.agent": {"adaptersSize": "20Gi", "readyTimeoutSeconds": 60}},
        {"spec.agent": {"adaptersSize": "20 GB"}},
        "spec.agent.adaptersSize",
        id="engine: a quantity",
    ),
    pytest.param(
        ENGINE,
        {"spec.baseModel": "meta-llama/Llama-3.1-8B-Instruct"},
        {"spec.baseModel": "two words"},
        "spec.baseModel",
        id="engine: base model",
    ),
    pytest.param(
        ENGINE, {"spec.container": "vllm"}, {"spec.container": "VLLM"}, "spec.container", id="engine: container"
    ),
    pytest.param(
        ENGINE,
        {"spec.agent.resources": {"requests": {"cpu": 1, "memory": "1Gi"}}},
        {"spec.agent.resources": {"requests": {f"example.com/r{number}": 1 for number in range(17)}}},
        "spec.agent.resources.requests",
        id="engine: resources are bounded",
    ),
    pytest.param(
        ADAPTER,
        {"spec.source": {"trainingJobRef": {"name": "support-v1"}}},
        {"spec.source": {"trainingJobRef": {"name": "support-v1"}, "hub": {"repo": "acme/support-lora"}}},
        "exactly one of hub and trainingJobRef",
        id="adapter: not two sources",
    ),
    pytest.param(ADAPTER, {}, {"spec.source": {}}, "exactly one of hub and trainingJobRef", id="adapter: a source"),
    pytest.param(
        ADAPTER,
        {"spec.source.hub": {"repo": "gpt2", "revision": "refs/pr/1", "tokenSecretRef": TOKEN}},
        {"spec.source.hub": {"repo": "https://hub/acme/support-lora"}},
        "spec.source.hub.repo",
        id="adapter: a repo is no URL",
    ),
    pytest.param(
        ADAPTER,
        {"spec.source.hub.tokenSecretRef": TOKEN},
        {"spec.source.hub.tokenSecretRef": {"name": "hf"}},
        "tokenSecretRef.key",
        id="adapter: a token's key is needed",
    ),
    pytest.param(
        ADAPTER,
        {"spec.source.hub.poll": {"mode": "Interval", "intervalSeconds": 30}},
        {"spec.source.hub.poll": {"mode": "Interval", "intervalSeconds": 29}},
        "intervalSeconds",
        id="adapter: polling has a floor",
    ),
    pytest.param(ADAPTER, {}, {"spec.baseModel": ABSENT}, "spec.baseModel", id="adapter: a base model is needed"),
    pytest.param(ADAPTER, {}, {"spec.engineRef": ABSENT}, "spec.engineRef", id="adapter: an engine is needed"),
    pytest.param(
        ADAPTER,
        {"spec.engineRef.namespace": "models"},
        {"spec.engineRef.namespace": "Models"},
        "spec.engineRef.namespace",
        id="adapter: engine's namespace",
    ),
    pytest.param(
        ADAPTER,
        {"spec.servedName": "acme/Support_bot:v1." + "x" * 108},
        {"spec.servedName": "x" * 129},
        "spec.servedName",
        id="adapter: served name's length",
    ),
    pytest.param(
        ADAPTER,
        {"spec.servedName": "support-bot"},
        {"spec.servedName": "support bot"},
        "spec.servedName",
        id="adapter: served name's letters",
    ),
    pytest.param(ADAPTER, {"spec.mode": "Dynamic"}, {"spec.mode": "Merged"}, "spec.mode", id="adapter: mode"),
    pytest.param(
        ADAPTER, {"spec.loading": "Eager"}, {"spec.loading": "OnDemand"}, "spec.loading", id="adapter: loading"
    ),
    pytest.param(
        ADAPTER,
        {"spec.tenants": [{"namespace": "team-a"}, {"namespace": "team-b"}]},
        {"spec.tenants": [{"namespace": "team-a"}, {"namespace": "team-a"}]},
        "Duplicate value",
        id="adapter: a tenant once",
    ),
    pytest.param(
        ADAPTER,
        {"spec.tenants": [{"namespace": "team-a"}]},
        {"spec.tenants": []},
        "spec.tenants",
        id="adapter: tenants, or the default",
    ),
    pytest.param(JOB, {}, {"spec.baseModel": ABSENT}, "spec.baseModel", id="job: a base model is needed"),
    pytest.param(
        JOB,
        {"spec.baseModel": {"name": "acme/tiny", "revision": "v1", "tokenSecretRef": TOKEN, "dtype": "BFloat16"}},
        {"spec.baseModel": {"name": "/models/tiny"}},
        "spec.baseModel.name",
        id="job: a base model is a repo",
    ),
    pytest.param(JOB, {"spec.baseModel.dtype": "Auto"}, {"spec.baseModel.dtype": "float16"}, "dtype", id="job: dtype"),
    pytest.param(
        JOB,
        {"spec.dataset.source": {"hub": {"repo": "acme/support", "config": "en", "tokenSecretRef": TOKEN}}},
        {"spec.dataset.source": {"hub": {"repo": "acme/support"}, "configMapRef": {"name": "a", "key": "b"}}},
        "exactly one of hub, configMapRef, pvc and url",
        id="job: not two data sets",
    ),
    pytest.param(JOB, {}, {"spec.dataset.source": {}}, "exactly one of hub, configMapRef, pvc", id="job: a data set"),
    pytest.param(
        JOB, {"spec.dataset.format": "Dolly"}, {"spec.dataset.format": "ShareGpt"}, "dataset.format", id="job: format"
    ),
    pytest.param(JOB, {}, {"spec.dataset.format": ABSENT}, "spec.dataset.format", id="job: a format is needed"),
    pytest.param(JOB, {"spec.lora.r": 512}, {"spec.lora.r": 513}, "spec.lora.r", id="job: rank"),
    pytest.param(
        JOB,
        {"spec.lora.targetModules": ["q_proj", "v_proj"]},
        {"spec.lora.targetModules": ["q_proj", "all-linear"]},
        "all-linear stands alone",
        id="job: all-linear alone",
    ),
    pytest.param(
        JOB,
        {"spec.lora.targetModules": ["all-linear"]},
        {"spec.lora.targetModules": []},
        "spec.lora.targetModules",
        id="job: some module",
    ),
    pytest.param(
        JOB,
        {"spec.lora": {"loraDropout": "0.05", "useRslora": True, "initLoraWeights": "Gaussian", "bias": "None"}},
        {"spec.lora": {"bias": "All"}},
        "spec.lora.bias",
        id="job: no biases",
    ),
    pytest.param(
        JOB,
        {"spec.training": {"maxSteps": 30}},
        {"spec.training": {"maxSteps": 30, "numTrainEpochs": 1}},
        "numTrainEpochs or maxSteps, not both",
        id="job: steps or epochs",
    ),
    pytest.param(
        JOB,
        {"spec.training": {"learningRate": "2e-4", "weightDecay": "0.01"}},
        {"spec.training": {"learningRate": "fast"}},
        "spec.training.learningRate",
        id="job: a decimal",
    ),
    pytest.param(
        JOB,
        {"spec.training.learningRate": "0.001"},
        {"spec.training.learningRate": 0.001},
        "spec.training.learningRate",
        id="job: a decimal is a string",
    ),
    pytest.param(
        JOB,
        {"spec.training.lrSchedulerType": "ConstantWithWarmup"},
        {"spec.training.lrSchedulerType": "cosine"},
        "lrSchedulerType",
        id="job: scheduler",
    ),
    pytest.param(
        JOB,
        {"spec.training.extraArgs": {"adam_beta2": "0.95", "dataset_num_proc": 2}},
        {"spec.training.extraArgs": {"adam_beta2": 0.95}},
        "spec.training.extraArgs",
        id="job: extra arguments are integers or strings",
    ),
    pytest.param(
        JOB,
        {"spec.training.extraArgs": {"a" * 64: 1}},
        {"spec.training.extraArgs": {"a" * 65: 1}},
        "at most 64 characters",
        id="job: extra arguments' names are bounded",
    ),
    pytest.param(
        JOB,
        {"spec.training.extraArgs": {"padding_free": "x" * 1024}},
        {"spec.training.extraArgs": {"padding_free": "x" * 1025}},
        "spec.training.extraArgs",
        id="job: extra arguments' values are bounded",
    ),
    pytest.param(JOB, {}, {"spec.output": ABSENT}, "spec.output", id="job: an output is needed"),
    pytest.param(
        JOB,
        {"spec.output.adapter": {"name": "support-bot", "servedName": "support"}, "spec.engineRef": ENGINE_REF},
        {"spec.output.adapter": {"name": "support-bot"}},
        "output.adapter needs engineRef",
        id="job: an adapter needs an engine",
    ),
    pytest.param(
        JOB,
        {"spec.output.hub.deletionPolicy": "Retain"},
        {"spec.output.hub.deletionPolicy": "Delete"},
        "deletionPolicy",
        id="job: deletion policy",
    ),
    pytest.param(
        JOB,
        {"spec.resources": {"limits": {"nvidia.com/gpu": 1, "memory": "64Gi"}}, "spec.nodeSelector": {"gpu": "h100"}},
        {"spec.nodeSelector": {"gpu": "x" * 64}},
        "spec.nodeSelector",
        id="job: node selector",
    ),
    pytest.param(
        JOB,
        {"spec.tolerations": [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}]},
        {"spec.tolerations": [{"key": "nvidia.com/gpu", "operator": "Matches"}]},
        "operator",
        id="job: toleration",
    ),
    pytest.param(
        JOB,
        {"spec.activeDeadlineSeconds": 3600, "spec.ttlSecondsAfterFinished": 0, "spec.backoffLimit": 0},
        {"spec.activeDeadlineSeconds": 0},
        "activeDeadlineSeconds",
        id="job: deadline",
    ),
    pytest.param(JOB, {"spec.maxPreemptions": 0}, {"spec.maxPreemptions": -1}, "maxPreemptions", id="job: preemptions"),
    pytest.param(
        JOB,
        {"spec.serviceAccountName": "trainer", "spec.priorityClassName": "batch", "spec.suspend": True},
        {"spec.serviceAccountName": "Trainer"},
        "serviceAccountName",
        id="job: names",
    ),
    *(pytest.param(JOB, *rule, id=f"job: {name}") for name, rule in {**TRAINING_RULES, **RUN_RULES}.items()),
    pytest.param(
        JOB,
        {"spec.parallelism": {"nodes": 1, "procPerNode": 2}},
        {"spec.parallelism": {"nodes": 2}},
        "a LoRATrainingJob trains on one node",
        id="job: one node",
    ),
    pytest.param(JOB, {}, {"spec.queue": {}}, 'unknown field "spec.queue"', id="job: no unknown field"),
]


@pytest.mark.parametrize(("base", "taken", "refused", "named"), RULES)
def test_the_apiserver_holds_the_rule(
    api: ApiServer, base: dict[str, Any], taken: dict[str, Any], refused: dict[str, Any], named: str
) -> None:
    stored = api.create(varied(base, taken), dry_run=True)
    assert stored["spec"]
    with pytest.raises(RefusedError) as refusal:
        api.create(varied(base, refused), dry_run=True)
    assert named in str(refusal.value)


@pytest.mark.parametrize(("base", "taken", "refused", "named"), RULES)
def test_the_models_read_what_the_apiserver_stores_as_they_read_what_was_written(
    api: ApiServer, base: dict[str, Any], taken: dict[str, Any], refused: dict[str, Any], named: str
) -> None:
    kind = next(kind for kind in KINDS if kind.__name__ == base["kind"])
    written = varied(base, taken)
    stored = api.create(written, dry_run=True)
    read, meant = (kind.model_validate(obj).model_dump(include={"spec"}) for obj in (stored, written))
    assert read == meant
