"""A real control plane: etcd, kube-apiserver, kube-controller-manager and kube-scheduler.

Alone on loopback it is up in seconds and serves every test that needs no pods (`control_plane()`); with a bridge
address it is the first half of a cluster with nodes (`cluster`). All state is in one folder.
"""

import json
import secrets
import shutil
import ssl
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from localcluster import addresses, kubeconfig, parts, pki, processes
from localcluster.addresses import Addresses
from localcluster.recipes import CONTROL_PLANE

LOOPBACK = "127.0.0.1"
MASTERS = "system:masters"  # the group that every apiserver lets do everything
AUDIT_POLICY = {
    "apiVersion": "audit.k8s.io/v1",
    "kind": "Policy",
    "omitStages": ["RequestReceived"],
    "rules": [{"level": "Metadata"}],
}


class PartDiedError(RuntimeError):
    """A part of the control plane ended by itself; the message holds the end of its log."""


class KubectlError(RuntimeError):
    """kubectl ended with an error; the message is what it said."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ControlPlane:
    """A running control plane, as its state folder describes it."""

    state_dir: Path
    addresses: Addresses
    host: str
    kubectl: Path
    helm: Path

    @property
    def cluster(self) -> str:
        """The cluster's short name."""
        return addresses.cluster_id(self.state_dir)

    @property
    def authority(self) -> pki.Authority:
        """Who signs this cluster's certificates."""
        return pki.Authority(folder=self.state_dir / "pki")

    @property
    def url(self) -> str:
        """Where the apiserver listens."""
        return f"https://{self.host}:{self.addresses.port(0)}"

    @property
    def kubeconfig(self) -> Path:
        """The administrator's kubeconfig."""
        return self.state_dir / "kubeconfig"

    @property
    def ca_file(self) -> Path:
        """The certificate authority that the apiserver's certificate comes from."""
        return self.authority.certificate

    @property
    def admin_token(self) -> str:
        """The administrator's bearer token."""
        return (self.state_dir / "pki" / "tokens.csv").read_text().partition(",")[0]

    @property
    def audit_log(self) -> Path:
        """Every request the apiserver answered, one JSON object a line (`audit` reads it)."""
        return self.state_dir / "audit.log"

    def run_kubectl(self, *arguments: str, stdin: str | None = None) -> str:
        """Run kubectl as the administrator and return what it printed."""
        command = [str(self.kubectl), "--kubeconfig", str(self.kubeconfig), *arguments]
        # Marked as the cluster's own: one that waits when its caller is killed goes down with the cluster.
        mark = processes.environment(self.cluster, "kubectl")
        done = subprocess.run(command, input=stdin, env=mark, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise KubectlError(f"kubectl {' '.join(arguments)}: {done.stderr.strip()}")
        return done.stdout

    def kubeconfig_for_user(self, user: str, *, groups: Sequence[str] = ()) -> Path:
        """Write a kubeconfig for any user name, with a certificate that the apiserver trusts."""
        name = f"user-{user.replace(':', '.').replace('/', '.')}"
        identity = self.authority.issue(name, user=user, groups=groups)
        return self._kubeconfig_file(name, identity=identity)

    def kubeconfig_for_service_account(self, namespace: str, name: str) -> Path:
        """Write a kubeconfig with a token of a ServiceAccount that exists, good for a day."""
        token = self.run_kubectl("create", "token", name, "--namespace", namespace, "--duration", "24h").strip()
        return self._kubeconfig_file(f"serviceaccount-{namespace}-{name}", token=token)

    def _kubeconfig_file(self, name: str, *, token: str = "", identity: pki.Identity | None = None) -> Path:
        path = self.state_dir / "kubeconfigs" / f"{name}.yaml"
        return kubeconfig.write(path, server=self.url, ca=self.ca_file, token=token, identity=identity)


@contextmanager
def control_plane(state_dir: Path, *, controllers: str | None = None) -> Iterator[ControlPlane]:
    """Run a control plane alone, on loopback, for the time of a with-block."""
    sweep()
    try:
        yield start(state_dir, controllers=controllers, owner=processes.this_process())
    finally:
        stop(state_dir)


def start(state_dir: Path, *, on_bridge: bool = False, controllers: str | None = None, owner: str = "") -> ControlPlane:
    """Start a control plane in a state folder that holds none, and wait until it can be worked with."""
    binaries = parts.ensure(CONTROL_PLANE)
    chosen = addresses.load(state_dir) or addresses.claim(state_dir)
    plane = ControlPlane(
        state_dir=state_dir.resolve(),
        addresses=chosen,
        host=chosen.bridge if on_bridge else LOOPBACK,
        kubectl=binaries["kubectl"],
        helm=binaries["helm"],
    )
    _write_files(plane)
    commands = {
        "etcd": _etcd(plane),
        "kube-apiserver": _apiserver(plane, on_bridge=on_bridge),
        "kube-controller-manager": _controller_manager(plane, controllers or "*"),
        "kube-scheduler": _scheduler(plane),
    }
    logs = {part: plane.state_dir / "logs" / f"{part}.log" for part in commands}
    for log in logs.values():
        log.unlink(missing_ok=True)  # that of a cluster before this one
    for part, flags in commands.items():
        if part == "kube-controller-manager":
            processes.wait_for("the apiserver to be ready", lambda: _answers_or_died(plane, "/readyz"))
        command: list[str | Path] = [binaries[part], *flags]
        processes.start(command, cluster=plane.cluster, part=part, log=logs[part], owner=owner)
    # Pods are refused until their namespace has its ServiceAccount: the controller manager's first deed.
    if controllers is None:
        account = "/api/v1/namespaces/default/serviceaccounts/default"
        processes.wait_for("the default ServiceAccount", lambda: _answers_or_died(plane, account))
    return plane


def load(state_dir: Path) -> ControlPlane | None:
    """Return the control plane whose files a state folder holds, running or not."""
    chosen = addresses.load(state_dir)
    config = state_dir / "kubeconfig"
    if chosen is None or not config.exists():
        return None
    server: str = json.loads(config.read_text())["clusters"][0]["cluster"]["server"]
    binaries = parts.ensure(("kubectl", "helm"))
    host = chosen.bridge if chosen.bridge in server else LOOPBACK
    return ControlPlane(state_dir=state_dir.resolve(), addresses=chosen, host=host, **binaries)


def stop(state_dir: Path) -> None:
    """End a control plane and forget what it knew; its logs stay."""
    processes.stop(addresses.cluster_id(state_dir))
    for folder in ("etcd", "pki", "kubeconfigs"):
        shutil.rmtree(state_dir / folder, ignore_errors=True)
    (state_dir / "kubeconfig").unlink(missing_ok=True)
    addresses.release(state_dir)


def sweep() -> None:
    """End control planes whose owner was killed before it could end them."""
    orphans = {found.cluster for found in processes.find() if found.owner and not processes.is_running(found.owner)}
    for cluster in orphans:
        processes.stop(cluster)


def answers(plane: ControlPlane, path: str) -> bool:
    """Tell whether the apiserver answers a path with success."""
    trust = ssl.create_default_context(cafile=str(plane.ca_file))
    request = urllib.request.Request(plane.url + path, headers={"Authorization": f"Bearer {plane.admin_token}"})
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=trust))
    try:
        with opener.open(request, timeout=5) as response:
            return bool(response.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def _answers_or_died(plane: ControlPlane, path: str) -> bool:
    """Like `answers`, but do not wait for what will never come."""
    running = {found.part for found in processes.find(plane.cluster)}
    for log in (plane.state_dir / "logs").glob("*.log"):
        if log.stem not in running:
            raise PartDiedError(f"{log.stem} ended; the end of {log}:\n{log.read_text()[-1500:]}")
    return answers(plane, path)


def _write_files(plane: ControlPlane) -> None:
    authority = pki.create(plane.authority.folder)
    names = ("localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc")
    hosts = (*names, LOOPBACK, plane.addresses.bridge, plane.addresses.kubernetes_service)
    authority.issue("apiserver", user="kube-apiserver", hosts=hosts)
    authority.issue("kubelet-client", user="apiserver-kubelet-client", groups=[MASTERS])
    token = secrets.token_urlsafe(24)
    (authority.folder / "tokens.csv").write_text(f"{token},admin,admin,{MASTERS}\n")
    (plane.state_dir / "audit-policy.json").write_text(json.dumps(AUDIT_POLICY))
    plane.audit_log.unlink(missing_ok=True)
    kubeconfig.write(plane.kubeconfig, server=plane.url, ca=plane.ca_file, token=token)


def _etcd(plane: ControlPlane) -> list[str]:
    client, peer = (f"http://{LOOPBACK}:{plane.addresses.port(offset)}" for offset in (1, 2))
    return [
        f"--data-dir={plane.state_dir}/etcd",
        f"--listen-client-urls={client}",
        f"--advertise-client-urls={client}",
        f"--listen-peer-urls={peer}",
        f"--initial-advertise-peer-urls={peer}",
        f"--initial-cluster=default={peer}",
        "--unsafe-no-fsync",  # nothing here outlives a power cut, and fsync is most of etcd's time
        "--log-level=warn",
    ]


def _apiserver(plane: ControlPlane, *, on_bridge: bool) -> list[str]:
    secret = plane.authority.folder
    issuer = "https://kubernetes.default.svc"
    flags = [
        f"--etcd-servers=http://{LOOPBACK}:{plane.addresses.port(1)}",
        f"--bind-address={plane.host}",
        f"--secure-port={plane.addresses.port(0)}",
        f"--advertise-address={plane.host}",
        f"--tls-cert-file={secret}/apiserver.crt",
        f"--tls-private-key-file={secret}/apiserver.key",
        f"--client-ca-file={plane.ca_file}",
        f"--token-auth-file={secret}/tokens.csv",
        f"--kubelet-client-certificate={secret}/kubelet-client.crt",
        f"--kubelet-client-key={secret}/kubelet-client.key",
        f"--kubelet-certificate-authority={plane.ca_file}",
        "--kubelet-preferred-address-types=InternalIP",
        f"--service-account-issuer={issuer}",
        f"--service-account-key-file={plane.authority.service_account_key}",
        f"--service-account-signing-key-file={plane.authority.service_account_key}",
        "--authorization-mode=Node,RBAC",
        "--enable-admission-plugins=NodeRestriction",
        f"--service-cluster-ip-range={plane.addresses.services}",
        "--allow-privileged=true",
        f"--audit-policy-file={plane.state_dir}/audit-policy.json",
        f"--audit-log-path={plane.audit_log}",
        "--audit-log-maxsize=4096",  # MB: a log that rotates would lose counts
    ]
    # Alone on loopback there is no address that pods could call: publish no endpoint.
    return flags if on_bridge else [*flags, "--endpoint-reconciler-type=none"]


def _controller_manager(plane: ControlPlane, controllers: str) -> list[str]:
    return [
        *_client_flags(plane, port=plane.addresses.port(3)),
        f"--controllers={controllers}",
        f"--service-account-private-key-file={plane.authority.service_account_key}",
        f"--root-ca-file={plane.ca_file}",
        "--use-service-account-credentials=true",
        "--allocate-node-cidrs=false",  # each node's network plugin has its range from the addresses
    ]


def _scheduler(plane: ControlPlane) -> list[str]:
    return _client_flags(plane, port=plane.addresses.port(4))


def _client_flags(plane: ControlPlane, *, port: int) -> list[str]:
    config = plane.kubeconfig
    return [
        *(f"--{flag}={config}" for flag in ("kubeconfig", "authentication-kubeconfig", "authorization-kubeconfig")),
        "--leader-elect=false",
        "--kube-api-qps=200",  # the default of 20 is for a shared apiserver, and half of the time to start here
        "--kube-api-burst=400",
        f"--bind-address={LOOPBACK}",
        f"--secure-port={port}",
        f"--cert-dir={plane.authority.folder}/{port}",
    ]
