"""What adopting brings into a Deployment at most: an engine on a model path, with a key, everything configured."""

from __future__ import annotations

from typing import Any

from lora_operator.api import LoRAEngine
from lora_operator.engines.refusal import Refusal
from lora_operator.lora_engine import manifests
from lora_operator.lora_engine.manifests import Defaults, Injection
from lora_operator.lora_engine.workload import read
from support.objects import make_container, make_deployment, make_engine

Object = dict[str, Any]


def injection() -> tuple[Injection, Object]:
    """Return the content, and the patch that brings it in."""
    engine = LoRAEngine.model_validate(make_engine())
    args = ["--model", "/models/llama", "--enable-lora", "--served-model-name", "acme/tiny-llama"]
    key = {"name": "VLLM_API_KEY", "valueFrom": {"secretKeyRef": {"name": "keys", "key": "vllm"}}}
    container = make_container(args=args, env=[key], volumeMounts=[{"name": "models", "mountPath": "/models"}])
    volumes = [{"name": "models", "persistentVolumeClaim": {"claimName": "models"}}]
    workload = read(engine, make_deployment("vllm-llama", container, volumes=volumes), trap=False, rivals=frozenset())
    assert not isinstance(workload, Refusal), workload.message
    defaults = Defaults(image="agent", resources={"requests": {"cpu": "100m"}}, image_pull_secrets=("registry",))
    content = manifests.injection(engine, workload, image="agent", defaults=defaults)
    return content, manifests.deployment_patch(engine, workload.container, content)
