"""One namespace of a test's control plane, worked with as a person does: kubectl, and looking until it is so."""

from __future__ import annotations

import json
import subprocess
import urllib.request
from dataclasses import dataclass
from typing import Any

from localcluster import ControlPlane
from support.operating import Operator, eventually

Object = dict[str, Any]


@dataclass(frozen=True)
class Site:
    """A namespace."""

    plane: ControlPlane
    namespace: str

    @classmethod
    def made(cls, plane: ControlPlane, namespace: str) -> Site:
        """Make the namespace."""
        plane.run_kubectl("create", "namespace", namespace)
        return cls(plane, namespace)

    def kubectl(self, *arguments: str, given: Object | None = None) -> str:
        """Run kubectl here; `given` is its standard input."""
        stdin = None if given is None else json.dumps(given)
        return self.plane.run_kubectl("--namespace", self.namespace, *arguments, stdin=stdin)

    def helm(self, *arguments: str) -> None:
        """Run helm here."""
        command = [str(self.plane.helm), "--kubeconfig", str(self.plane.kubeconfig), "--namespace", self.namespace]
        done = subprocess.run([*command, *arguments], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr

    def apply(self, obj: Object, *arguments: str) -> Object:
        """Apply an object and return it as it is stored."""
        stored: Object = json.loads(self.kubectl("apply", "-o", "json", *arguments, "-f", "-", given=obj))
        return stored

    def get(self, kind: str, name: str) -> Object | None:
        """Return an object, with its managed fields; None where it is not there."""
        text = self.kubectl("get", kind, name, "--ignore-not-found", "--show-managed-fields", "-o", "json")
        return json.loads(text) if text else None

    def items(self, kind: str, *arguments: str) -> list[Object]:
        """Return the objects of a kind."""
        found: list[Object] = json.loads(self.kubectl("get", kind, *arguments, "-o", "json"))["items"]
        return found

    def condition(self, kind: str, name: str, wanted: str) -> Object | None:
        """Return a condition of an object."""
        conditions = ((self.get(kind, name) or {}).get("status") or {}).get("conditions") or []
        return next((condition for condition in conditions if condition["type"] == wanted), None)

    def until(self, kind: str, name: str, wanted: str, *, status: str, reason: str | None = None) -> Object:
        """Wait until a condition has this status (and reason) and return it."""

        def look() -> Object | None:
            found = self.condition(kind, name, wanted)
            right = found is not None and found["status"] == status and reason in {None, found["reason"]}
            return found if right else None

        try:
            return eventually(look, f"{kind} {name}: {wanted}={status} {reason or ''}")
        except TimeoutError as error:
            raise TimeoutError(f"{error}; it has {json.dumps((self.get(kind, name) or {}).get('status'))}") from None

    def events_of(self, name: str) -> list[Object]:
        """Return the Events about an object of this name."""
        return [event for event in self.items("events.events.k8s.io") if event["regarding"]["name"] == name]


def passes(operator: Operator, kind: str) -> float:
    """Return how many passes of a kind the operator has run."""
    with urllib.request.urlopen(f"http://127.0.0.1:{operator.port}/metrics", timeout=10) as answer:
        lines = answer.read().decode().splitlines()
    total = f'lora_operator_reconcile_total{{controller="{kind}"'
    return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith(total))
