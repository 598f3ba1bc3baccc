"""Builders of objects as the apiserver gives them: each returns a plain dictionary that a test may change."""

from __future__ import annotations

import itertools
from typing import Any

from lora_operator import labels
from lora_operator.protocol.manifest import Entry, File, HubSource, Owner

Object = dict[str, Any]

NAMESPACE = "models"
BASE = "acme/tiny-llama"
_versions = itertools.count(1000)


def make_metadata(name: str, *, namespace: str = NAMESPACE, uid: str | None = None, **more: Any) -> Object:
    """Return an object's metadata."""
    version = str(next(_versions))
    return {
        "name": name,
        "namespace": namespace,
        "uid": uid or f"uid-{name}",
        "resourceVersion": version,
        "generation": 1,
    } | more


def make_engine(name: str = "llama", *, target: str = "vllm-llama", **spec: Any) -> Object:
    """Return a LoRAEngine."""
    return {
        "apiVersion": labels.API_VERSION,
        "kind": "LoRAEngine",
        "metadata": make_metadata(name),
        "spec": {"targetRef": {"kind": "Deployment", "name": target}} | spec,
    }


def make_adapter(name: str = "support", *, engine: str = "llama", namespace: str = NAMESPACE, **spec: Any) -> Object:
    """Return a LoRAAdapter."""
    return {
        "apiVersion": labels.API_VERSION,
        "kind": "LoRAAdapter",
        "metadata": make_metadata(name, namespace=namespace),
        "spec": {"source": {"hub": {"repo": f"acme/{name}"}}, "baseModel": BASE, "engineRef": {"name": engine}} | spec,
    }


def make_container(name: str = "vllm", *, args: list[str] | None = None, **more: Any) -> Object:
    """Return an engine's container that serves adapters."""
    words = ["--model", BASE, "--enable-lora"] if args is None else args
    command = ["python", "-m", "vllm.entrypoints.openai.api_server"]
    return {"name": name, "image": "example.org/serving:1", "command": command, "args": words} | more


def make_deployment(name: str = "vllm-llama", *containers: Object, replicas: int = 1, **pod: Any) -> Object:
    """Return a Deployment of an engine, rolled out."""
    app = {"app": name}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": make_metadata(name),
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": app},
            "template": {
                "metadata": {"labels": app},
                "spec": {"containers": list(containers or [make_container()])} | pod,
            },
        },
        "status": {
            "observedGeneration": 1,
            "replicas": replicas,
            "updatedReplicas": replicas,
            "availableReplicas": replicas,
        },
    }


def make_pod(name: str = "vllm-llama-0", *, engine: str = "llama", ready: bool = True, ip: str = "127.0.0.1") -> Object:
    """Return a running pod of an adopted engine."""
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": make_metadata(name, labels={labels.ENGINE: engine, labels.ROLE: labels.ENGINE_ROLE}),
        "status": {
            "phase": "Running",
            "podIP": ip,
            "conditions": [{"type": "Ready", "status": "True" if ready else "False"}],
        },
    }


def make_entry(name: str = "support", *, version: str = "a", uid: str | None = None, **more: Any) -> Entry:
    """Return a manifest entry for a LoRAAdapter; `version` stands for its content."""
    digest = (version * 64)[:64]
    values: dict[str, Any] = {
        "engine_name": f"{NAMESPACE}.{name}.{digest[:12]}",
        "digest": f"sha256:{digest}",
        "hub": HubSource(repo=f"acme/{name}", commit=(version * 40)[:40], credential=more.pop("credential", None)),
        "files": (File(path="adapter_config.json", sha256=digest, size=10),),
        "owner": Owner(namespace=NAMESPACE, name=name, uid=uid or f"uid-{name}", generation=1),
        "resolved": "2026-11-22T12:00:00Z",
        "rank": 8,
        "lora_alpha": "16",
        "target_modules": ("q_proj",),
    }
    return Entry(**(values | more))
