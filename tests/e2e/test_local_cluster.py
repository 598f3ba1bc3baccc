"""The local cluster is a real Kubernetes: names, services, volumes, limits, GPUs by number, nothing off the machine."""

import json
import shutil
import socket
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from localcluster import images
from localcluster.cluster import Cluster

BASH = "registry.local/bash:1"
PATIENCE = "--timeout=180s"


@pytest.fixture(scope="module")
def host_folder() -> Iterator[Path]:
    """Return a folder of the host under /var, which each node has for itself."""
    folder = Path(tempfile.mkdtemp(dir="/var/tmp"))
    (folder / "greeting").write_text("from the host\n")
    yield folder
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory, host_folder: Path) -> Iterator[Cluster]:
    state_dir = tmp_path_factory.mktemp("local-cluster")
    try:
        running = Cluster.up(state_dir, nodes=2, gpus=4, host_paths=[host_folder])
        running.load_image(images.program_image(BASH, ["bash", "sleep", "cat"]))
        yield running
    finally:
        Cluster.down(state_dir)


def pod(name: str, script: str, **spec: Any) -> dict[str, Any]:
    container = {"name": "main", "image": BASH, "command": ["bash", "-c", script], **spec.pop("container", {})}
    defaults = {"restartPolicy": "Never", "terminationGracePeriodSeconds": 0, "containers": [container]}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": {**defaults, **spec}}


def apply(cluster: Cluster, *objects: dict[str, Any]) -> None:
    cluster.plane.run_kubectl("apply", "-f", "-", stdin="\n---\n".join(json.dumps(each) for each in objects))


def wait(cluster: Cluster, name: str, path: str, value: str) -> None:
    cluster.plane.run_kubectl("wait", f"pod/{name}", f"--for=jsonpath={path}={value}", PATIENCE)


def succeeds(cluster: Cluster, wanted: dict[str, Any]) -> str:
    """Run a pod to its end and return what it printed."""
    name = wanted["metadata"]["name"]
    apply(cluster, wanted)
    ended = "{.status.containerStatuses[0].state.terminated.exitCode}"
    cluster.plane.run_kubectl("wait", f"pod/{name}", f"--for=jsonpath={ended}", PATIENCE)
    printed = cluster.plane.run_kubectl("logs", name)
    assert cluster.plane.run_kubectl("get", "pod", name, "-o", f"jsonpath={ended}") == "0", printed
    return printed


@pytest.mark.parametrize("number", [1, 2])
def test_services_answer_by_name_from_every_node(cluster: Cluster, number: int) -> None:
    # One of the two nodes is the DNS server's own: a Service must answer there too.
    script = """
    for service in kube-dns.kube-system.svc.cluster.local/53 kubernetes.default/443; do
      exec 3<> /dev/tcp/$service && echo reached
    done
    """
    at = {"kubernetes.io/hostname": f"node-{number}"}
    assert succeeds(cluster, pod(f"client-{number}", script, nodeSelector=at)).split() == ["reached", "reached"]


def test_nothing_leaves_the_machine(cluster: Cluster) -> None:
    script = "(exec 3<> /dev/tcp/192.0.2.1/80) 2>&1 || (exec 3<> /dev/tcp/example.com/80) 2>&1 || true"
    printed = succeeds(cluster, pod("outward", script))
    assert "No route to host" in printed or "Network is unreachable" in printed
    assert "Name or service not known" in printed


def test_pods_reach_a_server_on_the_hosts_bridge(cluster: Cluster) -> None:
    with socket.create_server((cluster.bridge_ip, 0)) as server:
        port = server.getsockname()[1]
        seen: list[str] = []

        def answer() -> None:
            connection, peer = server.accept()
            with connection:
                seen.append(peer[0])
                connection.sendall(b"hello\n")

        thread = threading.Thread(target=answer, daemon=True)
        thread.start()
        script = f"exec 3<> /dev/tcp/{cluster.bridge_ip}/{port}; cat <&3"
        assert succeeds(cluster, pod("to-host", script)) == "hello\n"
        thread.join()
    assert seen == [cluster.plane.run_kubectl("get", "pod", "to-host", "-o", "jsonpath={.status.podIP}")]


def test_the_host_reaches_pods_and_services(cluster: Cluster) -> None:
    where = ("get", "pods", "-n", "kube-system", "-l", "k8s-app=kube-dns", "-o", "jsonpath={.items[0].status.podIP}")
    for address in (cluster.plane.run_kubectl(*where), cluster.plane.addresses.dns):
        with socket.create_connection((address, 53), timeout=60) as connection:
            assert connection.getpeername()[0] == address


def test_a_claim_binds_and_keeps_what_is_written_to_it(cluster: Cluster) -> None:
    claim = {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": "kept"},
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}},
    }
    volumes = [{"name": "kept", "persistentVolumeClaim": {"claimName": "kept"}}]
    mounts = {"volumeMounts": [{"name": "kept", "mountPath": "/kept"}]}
    apply(cluster, claim)
    succeeds(cluster, pod("writer", "echo survived > /kept/file", volumes=volumes, container=mounts))
    cluster.plane.run_kubectl("delete", "pod", "writer")
    assert succeeds(cluster, pod("reader", "cat /kept/file", volumes=volumes, container=mounts)) == "survived\n"


def test_a_folder_of_the_host_is_seen_by_pods_at_its_own_path(cluster: Cluster, host_folder: Path) -> None:
    volumes = [{"name": "host", "hostPath": {"path": str(host_folder), "type": "Directory"}}]
    mounts = {"volumeMounts": [{"name": "host", "mountPath": "/host", "readOnly": True}]}
    wanted = pod("host-folder", "cat /host/greeting", volumes=volumes, container=mounts)
    assert succeeds(cluster, wanted) == "from the host\n"


def test_pods_get_gpus_by_number_and_no_more_than_there_are(cluster: Cluster) -> None:
    def asking(name: str, count: int) -> dict[str, Any]:
        limits = {"resources": {"limits": {"nvidia.com/gpu": str(count)}}}
        return pod(name, "echo placed", container=limits)

    assert succeeds(cluster, asking("three-gpus", 3)) == "placed\n"
    apply(cluster, asking("five-gpus", 5))
    wait(cluster, "five-gpus", "{.status.conditions[?(@.type=='PodScheduled')].reason}", "Unschedulable")


def test_a_pod_over_its_memory_limit_is_killed_for_it(cluster: Cluster) -> None:
    limits = {"resources": {"limits": {"memory": "64Mi"}}}
    apply(cluster, pod("hungry", "text=x; while :; do text=$text$text; done", container=limits))
    wait(cluster, "hungry", "{.status.containerStatuses[0].state.terminated.reason}", "OOMKilled")


def test_an_unknown_image_is_told_at_once(cluster: Cluster) -> None:
    apply(cluster, pod("unknown-image", "true", container={"image": "registry.example/none:1"}))
    cluster.plane.run_kubectl(
        "wait", "pod/unknown-image", "--for=jsonpath={.status.containerStatuses[0].state.waiting.message}", PATIENCE
    )
    where = "jsonpath={.status.containerStatuses[0].state.waiting.reason}"
    reason = cluster.plane.run_kubectl("get", "pod", "unknown-image", "-o", where)
    assert reason in {"ErrImagePull", "ImagePullBackOff"}


def test_a_killed_container_is_restarted_in_its_pod(cluster: Cluster) -> None:
    apply(cluster, pod("restarted", "sleep 36000", restartPolicy="Always"))
    cluster.plane.run_kubectl("wait", "pod/restarted", "--for=condition=Ready", PATIENCE)
    before = cluster.plane.run_kubectl("get", "pod", "restarted", "-o", "jsonpath={.metadata.uid}")
    cluster.kill_container("default", "restarted", "main")
    wait(cluster, "restarted", "{.status.containerStatuses[0].restartCount}", "1")
    assert cluster.plane.run_kubectl("get", "pod", "restarted", "-o", "jsonpath={.metadata.uid}") == before


def test_a_restricted_namespace_refuses_a_pod_that_is_not(cluster: Cluster) -> None:
    plane = cluster.plane
    plane.run_kubectl("create", "namespace", "strict")
    plane.run_kubectl("label", "namespace", "strict", "pod-security.kubernetes.io/enforce=restricted")
    with pytest.raises(RuntimeError, match='violates PodSecurity "restricted'):
        plane.run_kubectl("apply", "-n", "strict", "-f", "-", stdin=json.dumps(pod("loose", "true")))


def test_starting_again_finds_it_running(cluster: Cluster, host_folder: Path) -> None:
    pids = [node.pid for node in cluster.nodes]
    again = Cluster.up(cluster.plane.state_dir, nodes=2, gpus=4, host_paths=[host_folder])
    assert [node.pid for node in again.nodes] == pids
