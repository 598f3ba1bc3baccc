"""What `helm uninstall` runs first, with the rights that the chart gives it: nothing of ours holds anybody's namespace.

On a control plane of its own, for it lets go of everything.
"""

from __future__ import annotations

import copy
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from kubernetes.aio import client
from kubernetes.aio import config as kube_config

from localcluster import ControlPlane
from localcluster import control_plane as running_control_plane
from lora_operator import uninstall
from lora_operator.clients import kube as kube_client
from lora_operator.clients.kube import ENGINES, Kube, Listing, Resource
from lora_operator.finalizing import with_finalizer
from lora_operator.labels import FINALIZER, FINALIZER_MANAGER
from support import samples
from support.apiserver import ApiServer
from support.chart import NAMESPACE, RELEASE, Helm, Values, of_kind

Object = dict[str, Any]

ACCOUNT = f"{RELEASE}-uninstall"
SOMEBODYS = "example.com/theirs"
OBJECTS = (samples.engine, samples.adapter, samples.training_job)


@pytest.fixture(scope="module")
def plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    """Return a control plane on which nothing of ours runs."""
    with running_control_plane(tmp_path_factory.mktemp("uninstall")) as plane:
        plane.run_kubectl("create", "namespace", NAMESPACE)
        yield plane


@pytest.fixture(scope="module")
def helm(plane: ControlPlane, tmp_path_factory: pytest.TempPathFactory) -> Helm:
    """Return helm over it."""
    return Helm(plane.helm, tmp_path_factory.mktemp("helm"), plane.kubeconfig)


def install(plane: ControlPlane, helm: Helm, values: Values) -> list[str]:
    """Put up what the chart renders but the Job, and return the arguments that the Job has."""
    objects = helm.render(values)
    (job,) = of_kind(objects, "Job")
    everything = "\n---\n".join(json.dumps(obj) for obj in objects if obj is not job)
    plane.run_kubectl("apply", "--server-side", "--force-conflicts", "-f", "-", stdin=everything)
    plane.run_kubectl("wait", "--for=condition=Established", "--timeout=120s", "crd", "--all")
    selector = f"--selector=app.kubernetes.io/instance={RELEASE}"
    plane.run_kubectl("wait", "--for=create", "pod", selector, f"--namespace={NAMESPACE}", "--timeout=120s")
    (container,) = job["spec"]["template"]["spec"]["containers"]
    assert container["command"] == ["python", "-m", "lora_operator.uninstall"]
    arguments: list[str] = container["args"]
    return arguments


def tenant(plane: ControlPlane, namespace: str) -> None:
    """Make one object of each kind, held as the operator holds it; and one as a restored backup leaves it."""
    plane.run_kubectl("create", "namespace", namespace)
    api = ApiServer(plane)
    restored = samples.engine(namespace=namespace)
    restored["metadata"] |= {"name": "restored", "finalizers": [FINALIZER]}
    api.create(restored)
    for make in OBJECTS:
        held = with_finalizer(api.create(make(namespace=namespace)))
        manager = f"--field-manager={FINALIZER_MANAGER}"
        plane.run_kubectl("apply", "--server-side", manager, "-f", "-", stdin=json.dumps(held))


def held(plane: ControlPlane, namespace: str) -> list[str]:
    """Return the kinds of the objects that our finaliser holds."""
    listing = json.loads(plane.run_kubectl("get", "lora", f"--namespace={namespace}", "-o", "json"))
    return sorted(obj["kind"] for obj in listing["items"] if FINALIZER in obj["metadata"].get("finalizers", []))


def run(plane: ControlPlane, arguments: list[str]) -> subprocess.CompletedProcess[str]:
    """Run what the Job runs, as its ServiceAccount."""
    config = plane.kubeconfig_for_service_account(NAMESPACE, ACCOUNT)
    environment = {"PATH": os.environ["PATH"], "KUBECONFIG": str(config)}
    command = [sys.executable, "-m", "lora_operator.uninstall", *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=300)


ALL = ["LoRAAdapter", "LoRAEngine", "LoRAEngine", "LoRATrainingJob"]


def test_the_operator_is_stopped_first_and_then_namespaces_can_go(plane: ControlPlane, helm: Helm) -> None:
    arguments = install(plane, helm, {})
    tenant(plane, "tenant")
    theirs = json.dumps({"metadata": {"finalizers": [FINALIZER, SOMEBODYS]}})
    plane.run_kubectl("patch", "loraadapter/support-bot", "-n", "tenant", "--type=merge", "--patch", theirs)
    assert held(plane, "tenant") == ALL

    done = run(plane, arguments)

    assert done.returncode == 0, done.stderr
    replicas = ("get", f"deployment/{RELEASE}", "-n", NAMESPACE, "-o", "jsonpath={.spec.replicas}")
    assert plane.run_kubectl(*replicas) == "0"
    assert plane.run_kubectl("get", "pods", "-n", NAMESPACE, "-o", "name") == ""
    assert held(plane, "tenant") == []
    left = ("get", "loraadapter/support-bot", "-n", "tenant", "-o", "jsonpath={.metadata.finalizers}")
    assert json.loads(plane.run_kubectl(*left)) == [SOMEBODYS]
    nothing = json.dumps({"metadata": {"finalizers": []}})
    plane.run_kubectl("patch", "loraadapter/support-bot", "-n", "tenant", "--type=merge", "--patch", nothing)
    plane.run_kubectl("delete", "namespace", "tenant", "--timeout=60s")
    # A second attempt of the Job, or of the person, finds nothing to do.
    assert run(plane, arguments).returncode == 0


def test_an_operator_that_watched_some_namespaces_lets_go_there_alone(plane: ControlPlane, helm: Helm) -> None:
    for namespace in ("watched", "elsewhere"):
        tenant(plane, namespace)
    everywhere = (f"clusterrole/{ACCOUNT}", f"clusterrolebinding/{ACCOUNT}")
    plane.run_kubectl("delete", "--ignore-not-found", *everywhere)
    arguments = install(plane, helm, {"watch": {"namespaces": ["watched"]}})

    done = run(plane, arguments)

    assert done.returncode == 0, done.stderr
    assert (held(plane, "watched"), held(plane, "elsewhere")) == ([], ALL)


async def connection(config: Path, make: type[Kube] = Kube) -> Kube:
    """Return a connection with a kubeconfig's rights, made in this process."""
    configuration = client.Configuration()
    # The library reads KUBECONFIG once, when it is imported.
    await kube_config.load_kube_config(  # type: ignore[no-untyped-call]
        str(config), client_configuration=configuration
    )
    return make(client.ApiClient(configuration))


async def test_while_a_pod_of_the_operator_is_left_nothing_is_let_go(
    plane: ControlPlane, helm: Helm, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(plane, helm, {})
    tenant(plane, "still-served")
    pod = plane.run_kubectl("get", "pods", "-n", NAMESPACE, "-o", "name").split()[0]
    stays = json.dumps({"metadata": {"finalizers": [SOMEBODYS]}})
    plane.run_kubectl("patch", pod, "-n", NAMESPACE, "--type=merge", "--patch", stays)
    kube = await connection(plane.kubeconfig_for_service_account(NAMESPACE, ACCOUNT))

    async def connect(**_: Any) -> Kube:
        return kube

    monkeypatch.setattr(kube_client, "connect", connect)
    monkeypatch.setattr(uninstall, "STOP_SECONDS", 0.0)
    assert await uninstall.uninstall(NAMESPACE, RELEASE, ()) == 1
    assert held(plane, "still-served") == ALL
    gone = json.dumps({"metadata": {"finalizers": []}})
    plane.run_kubectl("patch", pod, "-n", NAMESPACE, "--type=merge", "--patch", gone)


class Late(Kube):
    """Lists one object more than there is: one that went after it was listed."""

    async def list(self, resource: Resource, *, namespace: str | None = None, selector: str = "") -> Listing:
        listing = await super().list(resource, namespace=namespace, selector=selector)
        ghost = copy.deepcopy(listing.items[0])
        ghost["metadata"] |= {"name": "went-meanwhile", "uid": "00000000-0000-0000-0000-000000000000"}
        return Listing([ghost, *listing.items], listing.version)


async def test_an_object_that_goes_meanwhile_hinders_nothing_and_does_not_come_back(
    plane: ControlPlane, helm: Helm
) -> None:
    install(plane, helm, {})
    tenant(plane, "late")
    kube = await connection(plane.kubeconfig_for_service_account(NAMESPACE, ACCOUNT), Late)
    try:
        for resource in uninstall.KINDS:
            await uninstall.let_go(kube, resource, None)
    finally:
        await kube.close()
    assert held(plane, "late") == []
    assert "went-meanwhile" not in plane.run_kubectl("get", "lora", "-n", "late", "-o", "name")


async def test_a_kind_whose_crd_is_gone_hinders_nothing(plane: ControlPlane) -> None:
    kube = await connection(plane.kubeconfig)
    try:
        await uninstall.let_go(kube, ENGINES._replace(plural="loragones"), None)
    finally:
        await kube.close()
