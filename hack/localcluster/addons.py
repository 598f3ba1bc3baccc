"""What runs in the cluster to make it whole: DNS, and a provisioner so that PersistentVolumeClaims bind.

Applied with kubectl once the nodes are Ready and hold the images; waited for by condition.
"""

import json

from localcluster import images, templating
from localcluster.controlplane import ControlPlane
from localcluster.node import Node

PATIENCE = "--timeout=180s"


def apply_dns(plane: ControlPlane) -> None:
    """Apply CoreDNS, at the address that every kubelet gives its pods."""
    manifest = templating.render("coredns.yaml", image=images.COREDNS, address=plane.addresses.dns)
    plane.run_kubectl("apply", "--filename", "-", stdin=manifest)


def apply_volumes(plane: ControlPlane, nodes: list[Node]) -> None:
    """Apply the provisioner, with a folder for volumes on each node."""
    paths = [{"node": node.name, "paths": [str(node.folder / "volumes")]} for node in nodes]
    config = json.dumps({"nodePathMap": paths})
    manifest = templating.render("local-path.yaml", image=images.PROVISIONER, shell=images.SHELL, config=config)
    plane.run_kubectl("apply", "--filename", "-", stdin=manifest)


def wait(plane: ControlPlane) -> None:
    """Wait until both answer."""
    for namespace, name in (("kube-system", "coredns"), ("local-path-storage", "local-path-provisioner")):
        plane.run_kubectl("rollout", "status", f"deployment/{name}", "--namespace", namespace, PATIENCE)
