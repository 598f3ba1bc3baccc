"""Installs the operator with its own chart, as a platform team would, with the local cluster's values."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

from quickstart import manifests
from quickstart.stage import Stage

CHART = Path(__file__).resolve().parents[2] / "charts" / "lora-operator"
RELEASE = "lora-operator"
NAMESPACE = "lora-system"


def install(stage: Stage, *, more: dict[str, Any] | None = None) -> None:
    """Install or upgrade the chart, and wait until the operator is ready."""
    helm(
        stage,
        *("upgrade", "--install", RELEASE, str(CHART), "--namespace", NAMESPACE, "--create-namespace"),
        *("--values", "-", "--wait", "--timeout", "5m"),
        stdin=json.dumps(values(stage) | (more or {})),
    )


def uninstall(stage: Stage) -> None:
    """Remove the release; CRDs and objects stay."""
    helm(stage, "uninstall", RELEASE, "--namespace", NAMESPACE, "--wait", "--timeout", "3m")


def values(stage: Stage) -> dict[str, Any]:
    """Return the values that differ on the local cluster: our images' tag, its Hub, the mounted environment."""
    volumes, mounts = manifests.pod_volumes()
    small = {"requests": {"cpu": "50m", "memory": "192Mi"}, "limits": {"memory": "192Mi"}}
    return {
        "operator": {"image": {"tag": stage.tag}},
        "agent": {"image": {"tag": stage.tag}, "resources": small},
        "trainer": {
            "image": {"tag": stage.tag},
            "volumes": volumes,
            "volumeMounts": mounts,
            "env": [{"name": "OMP_NUM_THREADS", "value": "1"}],
        },
        "hub": {"endpoint": stage.hub_url, "disableXet": True},
    }


def helm(stage: Stage, *arguments: str, stdin: str | None = None) -> str:
    """Run helm against the cluster; return what it printed."""
    home = stage.state_dir.resolve() / "helm"
    folders = {name: str(home) for name in ("HELM_CACHE_HOME", "HELM_CONFIG_HOME", "HELM_DATA_HOME")}
    done = subprocess.run(
        [stage.cluster.plane.helm, *arguments],
        input=stdin,
        env=os.environ | folders | {"KUBECONFIG": str(stage.cluster.plane.kubeconfig)},
        text=True,
        capture_output=True,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"helm {' '.join(arguments[:2])} failed: {done.stderr.strip()}")
    return done.stdout
