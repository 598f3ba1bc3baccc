"""The smallest objects of each kind that the apiserver takes, for tests to vary."""

from __future__ import annotations

import copy
from typing import Any

from lora_operator.labels import API_VERSION

Object = dict[str, Any]

ABSENT = object()
"""As a value for `varied`: the field is to go."""


def engine(name: str = "vllm-llama", namespace: str = "default") -> Object:
    """Return the smallest LoRAEngine."""
    return _object("LoRAEngine", name, namespace, {"targetRef": {"name": name}})


def adapter(name: str = "support-bot", namespace: str = "default") -> Object:
    """Return the smallest LoRAAdapter."""
    spec = {
        "source": {"hub": {"repo": "acme/support-lora"}},
        "baseModel": "acme/tiny-llama",
        "engineRef": {"name": "vllm-llama"},
    }
    return _object("LoRAAdapter", name, namespace, spec)


def training_job(name: str = "support-v1", namespace: str = "default") -> Object:
    """Return the smallest LoRATrainingJob."""
    spec = {
        "baseModel": {"name": "acme/tiny-llama"},
        "dataset": {"source": {"configMapRef": {"name": "support", "key": "train.jsonl"}}, "format": "Messages"},
        "output": {"hub": {"repo": "acme/support-lora"}},
    }
    return _object("LoRATrainingJob", name, namespace, spec)


def varied(obj: Object, fields: dict[str, Any]) -> Object:
    """Return a copy with other values at dotted paths."""
    result = copy.deepcopy(obj)
    for path, value in fields.items():
        *parents, last = path.split(".")
        place = result
        for parent in parents:
            place = place.setdefault(parent, {})
        if value is ABSENT:
            del place[last]
        else:
            place[last] = value
    return result


def _object(kind: str, name: str, namespace: str, spec: Object) -> Object:
    metadata = {"name": name, "namespace": namespace}
    return {"apiVersion": API_VERSION, "kind": kind, "metadata": metadata, "spec": spec}
