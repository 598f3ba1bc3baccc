"""One node: real kubelet, containerd and kube-proxy in network, mount, pid, uts and ipc namespaces of their own.

Started by `cluster` beside a control plane on the bridge. Killing the node's process 1 ends everything in it, so a
node has no other way down, and the same serves tests as a node that fails.
"""

import json
import os
import shutil
import signal
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from localcluster import cgroups, kubeconfig, network, parts, processes, templating
from localcluster.controlplane import ControlPlane
from localcluster.recipes import NODE
from machine import cache

PAUSE = "registry.local/pause:1"
RUNTIME_ENDPOINT = "unix:///run/containerd/containerd.sock"


class NodeError(RuntimeError):
    """A node did not do what was asked; the message holds what its program said."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Node:
    """One node of a cluster; nodes count from 1."""

    plane: ControlPlane
    number: int

    @property
    def name(self) -> str:
        """Its name in the Kubernetes API and in its own namespaces."""
        return f"node-{self.number}"

    @property
    def ip(self) -> str:
        """Its address on the bridge."""
        return self.plane.addresses.node(self.number)

    @property
    def folder(self) -> Path:
        """Where it keeps its state."""
        return self.plane.state_dir / "nodes" / self.name

    @property
    def cgroup(self) -> str:
        """The cgroup that its pods live under."""
        return f"{cgroup_prefix(self.plane.cluster)}{self.number}"

    @property
    def pid(self) -> int | None:
        """The node's process 1 as the host sees it, if the node runs."""
        return init_pid(self.plane.cluster, self.name)

    def exec(self, command: Sequence[str], *, stdin: Path | None = None) -> str:
        """Run a command inside the node, beside kubelet and containerd, and return what it printed."""
        pid = self.pid
        if pid is None:
            raise NodeError(f"{self.name} is not running")
        enter = ["nsenter", "--target", str(pid), "--mount", "--net", "--pid", "--uts", "--ipc", "--", *command]
        marked = {**processes.environment(self.plane.cluster, "exec"), "PATH": _search_path()}
        with (stdin or Path(os.devnull)).open("rb") as given:
            done = subprocess.run(enter, stdin=given, env=marked, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise NodeError(f"{' '.join(command)} on {self.name}: {done.stderr.strip()}")
        return done.stdout

    def runtime_answers(self) -> bool:
        """Tell whether containerd is up."""
        self.check_alive()
        try:
            self.exec(["ctr", "version"])
        except NodeError:
            return False
        return True

    def load_image(self, tar: Path) -> None:
        """Import an OCI tar, so that pods with its image name start without a registry."""
        # By standard input: the tar need not be visible inside the node.
        into = ["--local", "--snapshotter", snapshotter(self.folder)]
        self.exec(["ctr", "--namespace", "k8s.io", "images", "import", *into, "-"], stdin=tar)

    def check_alive(self) -> None:
        """Raise an error with the ends of the logs if the node's process 1 has ended."""
        if self.pid is None:
            raise NodeError(f"{self.name} is not running; {self.last_words()}")

    def last_words(self) -> str:
        """Return the end of each of the node's logs, for an error's message."""
        logs = sorted((self.folder / "logs").glob("*.log"))
        return "\n".join(f"the end of {log}:\n{log.read_text()[-800:]}" for log in logs)

    def kill(self) -> None:
        """End the node at once with everything in it, as a power cut would."""
        kill(self.plane.cluster, self.name)


def cgroup_prefix(cluster: str) -> str:
    """Return how the names of all of a cluster's cgroups start."""
    return f"lora-operator-{cluster}-node-"


def start(plane: ControlPlane, *, number: int, nodes: int, pause_image: Path, host_paths: Sequence[Path]) -> Node:
    """Start a node; it registers itself with the control plane within seconds."""
    node = Node(plane=plane, number=number)
    shutil.rmtree(node.folder, ignore_errors=True)  # the logs of one before
    for folder in ("logs", "cni", "var/lib/kubelet", "var/lib/containerd", "var/log"):
        (node.folder / folder).mkdir(parents=True)
    binaries = parts.ensure(NODE)
    _write_kubelet_files(node)
    _write_runtime_files(node, binaries)
    script = node.folder / "init.sh"
    peers = [{"pods": plane.addresses.pods(n), "address": plane.addresses.node(n)} for n in range(1, nodes + 1)]
    values = {
        "name": node.name,
        "address": node.ip,
        "state": node.folder,
        "logs": node.folder / "logs",
        "peers": [peer for peer in peers if peer["address"] != node.ip],
        "all_pods": plane.addresses.all_pods,
        "path": _search_path(),
        "pause_image": pause_image,
        "snapshotter": snapshotter(node.folder),
        "kept_below_var": _below_var([plane.state_dir, cache.root(), pause_image, *host_paths]),
    }
    script.write_text(templating.render("node-init.sh", **values))
    cgroups.create(node.cgroup)
    unshare = ["unshare", "--net", "--mount", "--pid", "--uts", "--ipc", "--fork", "--propagation", "slave"]
    log = node.folder / "logs" / "init.log"
    processes.start([*unshare, "bash", script], cluster=plane.cluster, part=node.name, log=log)
    processes.wait_for(f"{node.name}'s process 1", lambda: node.pid is not None)
    network.connect_node(plane.cluster, plane.addresses, number=number, pid=node.pid or 0)
    return node


def snapshotter(folder: Path) -> str:
    """Return how containerd is to keep layers: an overlay cannot lie on an overlay, as a container's own disk is."""
    told = subprocess.run(["stat", "--file-system", "--format=%T", folder], capture_output=True, text=True, check=True)
    return "native" if told.stdout.strip() == "overlayfs" else "overlayfs"


def init_pid(cluster: str, name: str) -> int | None:
    """Return the host's pid of a node's process 1."""
    for found in processes.find(cluster):
        if found.part == name and _is_first_in_its_namespace(found.pid):
            return found.pid
    return None


def kill(cluster: str, name: str) -> None:
    """Kill a node's process 1 and wait until the kernel has ended all the others."""
    pid = init_pid(cluster, name)
    if pid is not None:
        os.kill(pid, signal.SIGKILL)
        processes.wait_for(f"{name} to end", lambda: not any(f.part == name for f in processes.find(cluster)))


def _is_first_in_its_namespace(pid: int) -> bool:
    try:
        lines = (Path("/proc") / str(pid) / "status").read_text().splitlines()
    except OSError:
        return False
    seen_as = next((line.split()[1:] for line in lines if line.startswith("NSpid:")), [])
    return len(seen_as) > 1 and seen_as[-1] == "1"


def _search_path() -> str:
    """Return a PATH on which the node's programs find each other."""
    folders = {str(path.parent) for path in parts.ensure(NODE).values()}
    system = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    return ":".join([*sorted(folders), system])


def _below_var(paths: Sequence[Path]) -> list[str]:
    """Return those of the paths that the node's own /var would hide."""
    return sorted({str(path.resolve()) for path in paths if path.resolve().is_relative_to("/var")})


def _write_kubelet_files(node: Node) -> None:
    plane, authority = node.plane, node.plane.authority
    identity = authority.issue(
        node.name, user=f"system:node:{node.name}", groups=["system:nodes"], hosts=[node.ip, node.name]
    )
    proxy = authority.issue(f"{node.name}-proxy", user="system:kube-proxy")
    for name, who in (("kubelet", identity), ("kube-proxy", proxy)):
        path = node.folder / f"{name}.kubeconfig"
        kubeconfig.write(path, server=plane.url, ca=plane.ca_file, identity=who)
    settings = {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "address": node.ip,
        "healthzBindAddress": "127.0.0.1",
        "authentication": {
            "anonymous": {"enabled": False},
            "webhook": {"enabled": True},
            "x509": {"clientCAFile": str(plane.ca_file)},
        },
        "authorization": {"mode": "Webhook"},
        "tlsCertFile": str(identity.certificate),
        "tlsPrivateKeyFile": str(identity.key),
        "containerRuntimeEndpoint": RUNTIME_ENDPOINT,
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": f"/{node.cgroup}",
        "cgroupsPerQOS": True,
        "enforceNodeAllocatable": ["pods"],
        "failCgroupV1": False,
        "failSwapOn": False,
        "resolvConf": "",
        # How long a changed ConfigMap takes to show in a mount: 2 to 7 s; with the default of 1m up to 81 s.
        "syncFrequency": "5s",
        "clusterDNS": [plane.addresses.dns],
        "clusterDomain": "cluster.local",
        "oomScoreAdj": 0,
        "maxOpenFiles": 20000,
        "nodeStatusUpdateFrequency": "4s",
        "serializeImagePulls": False,
        # The disk is the developer's: a node that evicts for its fullness would help nobody.
        "imageGCHighThresholdPercent": 100,
        "evictionHard": dict.fromkeys(
            ("memory.available", "nodefs.available", "nodefs.inodesFree", "imagefs.available"), "0%"
        ),
    }
    (node.folder / "kubelet.json").write_text(json.dumps(settings, indent=1))


def _write_runtime_files(node: Node, binaries: dict[str, Path]) -> None:
    # Every pod has its own cable and is routed, never bridged: a Service then answers its own node's pods on any
    # kernel, whether or not bridged packets pass its connection tracking.
    pods = node.plane.addresses.pods(node.number)
    ranges = {"type": "host-local", "dataDir": "/run/cni-ipam", "ranges": [[{"subnet": pods}]]}
    plugin = {"type": "ptp", "ipMasq": False, "mtu": 1500, "ipam": {**ranges, "routes": [{"dst": "0.0.0.0/0"}]}}
    conflist = {"cniVersion": "1.0.0", "name": "pods", "plugins": [plugin]}
    (node.folder / "cni" / "10-pods.conflist").write_text(json.dumps(conflist))
    values = {"runc": binaries["runc"], "cni": binaries["ptp"].parent, "pause": PAUSE}
    text = templating.render("containerd.toml", state=node.folder, snapshotter=snapshotter(node.folder), **values)
    (node.folder / "containerd.toml").write_text(text)


def remove_state(folder: Path) -> None:
    """Delete what a node that has ended left in its folder, but its logs."""
    for name in ("var", "cni"):
        shutil.rmtree(folder / name, ignore_errors=True)
