"""A whole cluster: control plane on a bridge, nodes, DNS and volumes; up, down, and a handle for tests.

The entry point for `make cluster`, the quickstart and the e2e tests. For development and tests only.
"""

import functools
import json
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from localcluster import addons, addresses, controlplane, images, network, node, parts, processes, teardown
from localcluster.controlplane import ControlPlane, KubectlError
from localcluster.node import Node
from localcluster.recipes import ADDONS, CONTROL_PLANE
from localcluster.recipes import NODE as NODE_BINARIES
from machine import debian, lock
from machine.progress import step


class NeedsRootError(PermissionError):
    """Nodes need namespaces, mounts and cgroups, which only root may make here."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Cluster:
    """A running cluster: its control plane and its nodes."""

    plane: ControlPlane
    nodes: tuple[Node, ...]

    @classmethod
    def up(cls, state_dir: Path, *, nodes: int = 2, gpus: int = 0, host_paths: Sequence[Path] = ()) -> "Cluster":
        """Return the cluster of a state folder, starting it unless it runs with this very shape."""
        _check_machine(state_dir)
        shape = {"nodes": nodes, "gpus": gpus, "host_paths": [str(path) for path in host_paths]}
        with _locked(state_dir):
            running = cls.load(state_dir)
            if running is not None and json.loads(_record(state_dir).read_text()) == shape and running.is_healthy():
                return running
            teardown.down(state_dir)
            cluster = _start(state_dir, nodes=nodes, gpus=gpus, host_paths=host_paths)
            _record(state_dir).write_text(json.dumps(shape))
            return cluster

    @classmethod
    def load(cls, state_dir: Path) -> "Cluster | None":
        """Return the cluster that a state folder describes, or None."""
        record = _record(state_dir)
        plane = controlplane.load(state_dir)
        if plane is None or not record.exists():
            return None
        count: int = json.loads(record.read_text())["nodes"]
        return cls(plane=plane, nodes=tuple(Node(plane=plane, number=number) for number in range(1, count + 1)))

    @staticmethod
    def down(state_dir: Path) -> None:
        """Take down whatever runs for a state folder."""
        with _locked(state_dir):
            teardown.down(state_dir)

    @property
    def bridge_ip(self) -> str:
        """The host's address that pods can reach."""
        return self.plane.addresses.bridge

    def is_healthy(self) -> bool:
        """Tell whether every part of it runs."""
        running = {found.part for found in processes.find(self.plane.cluster)}
        wanted = {network.SWITCH, "etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler"}
        alive = wanted <= running and all(member.pid is not None for member in self.nodes)
        return alive and controlplane.answers(self.plane, "/readyz")

    def load_image(self, tar: Path) -> None:
        """Import an OCI tar into every node."""
        with ThreadPoolExecutor() as pool:
            list(pool.map(lambda member: member.load_image(tar), self.nodes))

    def node_of(self, namespace: str, pod: str) -> Node:
        """Return the node that a pod runs on."""
        jsonpath = "--output=jsonpath={.spec.nodeName}"
        name = self.plane.run_kubectl("get", "pod", pod, "--namespace", namespace, jsonpath)
        return next(member for member in self.nodes if member.name == name)

    def kill_container(self, namespace: str, pod: str, container: str) -> None:
        """Kill a container's first process, as the kernel would when it runs out of memory."""
        get = ("get", "pod", pod, "--namespace", namespace, "--output=json")
        status = json.loads(self.plane.run_kubectl(*get))["status"]
        statuses = [*status.get("initContainerStatuses", ()), *status.get("containerStatuses", ())]
        runtime_id = next(entry["containerID"] for entry in statuses if entry["name"] == container)
        kill = ["ctr", "--namespace", "k8s.io", "tasks", "kill", "--signal", "SIGKILL"]
        self.node_of(namespace, pod).exec([*kill, runtime_id.partition("://")[2]])


def write_env(state_dir: Path, extra: dict[str, str] | None = None) -> Path:
    """Write the shell file that points kubectl, helm and whatever else is named at the cluster."""
    plane = controlplane.load(state_dir)
    if plane is None:
        raise FileNotFoundError(f"there is no cluster in {state_dir}")
    folder = state_dir.resolve() / "bin"
    folder.mkdir(exist_ok=True)
    for tool in (plane.kubectl, plane.helm):
        link = folder / tool.name
        link.unlink(missing_ok=True)
        link.symlink_to(tool)
    values = {"KUBECONFIG": str(plane.kubeconfig), **(extra or {})}
    lines = [f"export {name}='{value}'" for name, value in values.items()]
    env = state_dir / "env"
    env.write_text("\n".join([*lines, f"export PATH='{folder}':\"$PATH\"", ""]))
    return env


def _start(state_dir: Path, *, nodes: int, gpus: int, host_paths: Sequence[Path]) -> Cluster:
    parts.ensure((*CONTROL_PLANE, *NODE_BINARIES, *ADDONS))
    pause = images.pause_image()
    tars = [images.coredns_image(), images.provisioner_image(), images.shell_image()]
    with step("starting the control plane"):
        chosen = addresses.claim(state_dir)
        network.create(addresses.cluster_id(state_dir), chosen, log=state_dir / "logs" / "switch.log")
        plane = controlplane.start(state_dir, on_bridge=True)
    with step("starting 1 node" if nodes == 1 else f"starting {nodes} nodes"):
        members = [
            node.start(plane, number=number, nodes=nodes, pause_image=pause, host_paths=host_paths)
            for number in range(1, nodes + 1)
        ]
        network.route_services(chosen)
        cluster = Cluster(plane=plane, nodes=tuple(members))
        with ThreadPoolExecutor(1) as beside:
            loaded = beside.submit(_load_all, cluster, tars)
            _wait_for_nodes(cluster)
            loaded.result()
    with step("adding DNS and volumes"):
        addons.apply_dns(plane)
        addons.apply_volumes(plane, members)
        addons.wait(plane)
    if gpus:
        _pretend_gpus(cluster, gpus)
    return cluster


def _load_all(cluster: Cluster, tars: Sequence[Path]) -> None:
    for member in cluster.nodes:
        processes.wait_for(f"{member.name}'s containerd", member.runtime_answers)
    for tar in tars:
        cluster.load_image(tar)


def _wait_for_nodes(cluster: Cluster) -> None:
    kubectl = cluster.plane.run_kubectl
    for member in cluster.nodes:
        processes.wait_for(f"{member.name} to register", functools.partial(_registered, member))
    names = [f"node/{member.name}" for member in cluster.nodes]
    try:
        kubectl("wait", "--for=condition=Ready", *names, addons.PATIENCE)
    except KubectlError as error:
        raise node.NodeError("\n".join([str(error), *(member.last_words() for member in cluster.nodes)])) from error


def _registered(member: Node) -> bool:
    """Tell whether a node's object is there, but do not wait for one whose first process has ended."""
    member.check_alive()
    return controlplane.answers(member.plane, f"/api/v1/nodes/{member.name}")


def _pretend_gpus(cluster: Cluster, count: int) -> None:
    """Let the scheduler believe in GPUs: pods that ask for them are placed and run, without any."""
    amounts = {"nvidia.com/gpu": str(count)}
    patch = json.dumps({"status": {"capacity": amounts, "allocatable": amounts}})
    for member in cluster.nodes:
        cluster.plane.run_kubectl("patch", "node", member.name, "--subresource=status", "--patch", patch)


def _check_machine(state_dir: Path) -> None:
    if os.geteuid() != 0:
        raise NeedsRootError(
            "the local cluster's nodes need root (namespaces, mounts, cgroups). "
            "Without it, use any cluster you have: kubectl's current context and `helm install` do the same"
        )
    if state_dir.resolve().is_relative_to("/run"):
        raise ValueError(f"{state_dir} is under /run, which each node has for itself: choose another folder")
    debian.ensure_programs(ip="iproute2", nft="nftables")


def _record(state_dir: Path) -> Path:
    return state_dir / "cluster.json"


@contextmanager
def _locked(state_dir: Path) -> Iterator[None]:
    state_dir.mkdir(parents=True, exist_ok=True)
    with lock.held(state_dir / "lock"):
        yield
