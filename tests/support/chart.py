"""Our chart through the real helm: what it renders, and what it says where it refuses."""

from __future__ import annotations

import copy
import json
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

CHART = Path(__file__).resolve().parents[2] / "charts" / "lora-operator"
RELEASE = "lora-operator"
NAMESPACE = "lora-system"
USER = f"system:serviceaccount:{NAMESPACE}:{RELEASE}"
"""Who the operator is to the apiserver."""

Object = dict[str, Any]
Values = dict[str, Any]

CASES: dict[str, Values] = {"default": {}} | {
    path.name.removesuffix("-values.yaml"): yaml.safe_load(path.read_text())
    for path in sorted((CHART / "ci").glob("*-values.yaml"))
}


class HelmError(Exception):
    """helm ended with an error; the message is what it said."""


@dataclass(frozen=True)
class Helm:
    """The helm program, over the cluster of a kubeconfig where one is given, with its own folders."""

    program: Path
    home: Path
    kubeconfig: Path | None = None
    _rendered: dict[str, list[Object]] = field(default_factory=dict)

    def __call__(self, *arguments: str, values: Values | None = None) -> str:
        """Run helm with these values on top of the chart's own and return what it printed."""
        folders = {f"HELM_{name}_HOME": str(self.home / name.lower()) for name in ("CACHE", "CONFIG", "DATA")}
        access = {"HOME": str(self.home), "KUBECONFIG": str(self.kubeconfig or self.home / "none")}
        given = [] if values is None else ["--values", "-"]
        done = subprocess.run(
            [self.program, *arguments, *given],
            input=json.dumps(values),
            env=folders | access,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise HelmError(done.stdout + done.stderr)
        return done.stdout

    def render(self, values: Values | None = None, *, release: str = RELEASE) -> list[Object]:
        """Return the objects that the chart renders with these values, hooks among them."""
        key = json.dumps([release, values], sort_keys=True)
        if key not in self._rendered:
            text = self("template", release, str(CHART), "--namespace", NAMESPACE, values=values or {})
            self._rendered[key] = [obj for obj in yaml.safe_load_all(text) if obj]
        return copy.deepcopy(self._rendered[key])


def of_kind(objects: Iterable[Object], *kinds: str) -> list[Object]:
    """Return the objects of these kinds."""
    return [obj for obj in objects if obj["kind"] in kinds]


def named(objects: Iterable[Object], kind: str, name: str) -> Object:
    """Return the one object of this kind and name."""
    (found,) = (obj for obj in of_kind(objects, kind) if obj["metadata"]["name"] == name)
    return found


def operators_rights(objects: Iterable[Object]) -> list[Object]:
    """Return the operator's account, its roles and their bindings: what has to be there before it can start."""
    kinds = ("ServiceAccount", "Role", "ClusterRole", "RoleBinding", "ClusterRoleBinding")
    return [obj for obj in of_kind(objects, *kinds) if "helm.sh/hook" not in obj["metadata"].get("annotations", {})]


def operator_env(objects: Iterable[Object]) -> dict[str, str]:
    """Return the environment of the operator's container as kubelet would give it, fields of the pod left out."""
    (deployment,) = of_kind(objects, "Deployment")
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    return {entry["name"]: entry["value"].replace("$$(", "$(") for entry in container["env"] if "value" in entry}
