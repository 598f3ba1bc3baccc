"""What the platform team of the example has in its cluster: a namespace, the environment's volume, and vLLM. Pure."""

from __future__ import annotations

from pathlib import Path
from typing import Any

Object = dict[str, Any]

CLAIM = "engine-environment"
MOUNT = "/opt/lora"
PORT = 8000
ENGINE_IMAGE = "registry.local/engine-base:1"

SMALL = (
    *("--dtype", "float32", "--enforce-eager", "--max-model-len", "256", "--max-num-seqs", "8"),
    *("--max-num-batched-tokens", "256", "--kv-cache-memory-bytes", "67108864"),
    *("--distributed-executor-backend", "uni"),
)
"""What makes vLLM small on a CPU."""
LORA = ("--enable-lora", "--max-loras", "4", "--max-cpu-loras", "16", "--max-lora-rank", "16")


def namespace(name: str) -> Object:
    """Return a namespace under the restricted Pod Security Standard."""
    labels = {"pod-security.kubernetes.io/enforce": "restricted", "pod-security.kubernetes.io/warn": "restricted"}
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}}


def environment_volume(name: str, path: Path) -> list[Object]:
    """Return a read-only PersistentVolume over a folder of the nodes, and a claim on it in namespace `name`."""
    volume = {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": f"{CLAIM}-{name}"},
        "spec": {
            "capacity": {"storage": "10Gi"},
            "accessModes": ["ReadOnlyMany"],
            "persistentVolumeReclaimPolicy": "Retain",
            "storageClassName": "",
            "claimRef": {"namespace": name, "name": CLAIM},
            "hostPath": {"path": str(path), "type": "Directory"},
        },
    }
    claim = {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": CLAIM, "namespace": name},
        "spec": {
            "accessModes": ["ReadOnlyMany"],
            "storageClassName": "",
            "volumeName": f"{CLAIM}-{name}",
            "resources": {"requests": {"storage": "10Gi"}},
        },
    }
    return [volume, claim]


def pod_volumes() -> tuple[list[Object], list[Object]]:
    """Return the volume and the mount by which a pod sees the environment at /opt/lora."""
    volumes = [{"name": CLAIM, "persistentVolumeClaim": {"claimName": CLAIM, "readOnly": True}}]
    return volumes, [{"name": CLAIM, "mountPath": MOUNT, "readOnly": True}]


def engine(
    name: str, *, in_namespace: str, model: str, hub_url: str, replicas: int = 1, flags: tuple[str, ...] = LORA
) -> list[Object]:
    """Return a vLLM Deployment on CPU and its Service, as a platform team would have them before it knows of us."""
    volumes, mounts = pod_volumes()
    labels = {"app": name}
    environment = {
        "HF_ENDPOINT": hub_url,
        "HOME": "/tmp",  # noqa: S108 - the pod's own emptyDir
        "OMP_NUM_THREADS": "1",
        "VLLM_CACHE_ROOT": f"{MOUNT}/vllm-cache",
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",
        "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
        "VLLM_NO_USAGE_STATS": "1",
    }
    container = {
        "name": "vllm",
        "image": ENGINE_IMAGE,
        "command": [f"{MOUNT}/env/bin/vllm", "serve", model],
        "args": ["--port", str(PORT), *SMALL, *flags],
        "env": [{"name": key, "value": value} for key, value in environment.items()],
        "ports": [{"name": "http", "containerPort": PORT}],
        "readinessProbe": {"httpGet": {"path": "/health", "port": "http"}, "periodSeconds": 1},
        "resources": {"requests": {"cpu": "500m", "memory": "1536Mi"}, "limits": {"memory": "3Gi"}},
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "volumeMounts": [*mounts, {"name": "tmp", "mountPath": "/tmp"}],  # noqa: S108 - the pod's own emptyDir
    }
    deployment = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name, "namespace": in_namespace},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": labels},
            "template": {
                "metadata": {"labels": labels},
                "spec": {
                    "automountServiceAccountToken": False,
                    "enableServiceLinks": False,
                    "securityContext": {
                        "runAsNonRoot": True,
                        "runAsUser": 10002,
                        "seccompProfile": {"type": "RuntimeDefault"},
                    },
                    "containers": [container],
                    "volumes": [*volumes, {"name": "tmp", "emptyDir": {}}],
                },
            },
        },
    }
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name, "namespace": in_namespace},
        "spec": {"selector": labels, "ports": [{"name": "http", "port": PORT, "targetPort": "http"}]},
    }
    return [deployment, service]
