"""The control plane alone: a real apiserver with RBAC, an audit log, several side by side, gone without a trace."""

import datetime as dt
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from localcluster import ControlPlane, audit, controlplane, processes
from localcluster import control_plane as running_control_plane
from localcluster.cluster import write_env


def kubectl_as(plane: ControlPlane, config: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [str(plane.kubectl), "--kubeconfig", str(config), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_kubectl_and_helm_talk_to_it(control_plane: ControlPlane) -> None:
    versions = json.loads(control_plane.run_kubectl("version", "--output=json"))
    assert versions["serverVersion"]["gitVersion"].startswith("v1.37.")
    helm = [str(control_plane.helm), "--kubeconfig", str(control_plane.kubeconfig), "list", "--all-namespaces"]
    assert subprocess.run(helm, capture_output=True, text=True, check=True).stdout.startswith("NAME")


def test_its_controllers_work(control_plane: ControlPlane) -> None:
    control_plane.run_kubectl("create", "namespace", "controllers-work")
    control_plane.run_kubectl("create", "deployment", "web", "--image=none/such:1", "--namespace=controllers-work")
    wait = ("wait", "--for=create", "pod", "--selector=app=web", "--namespace=controllers-work", "--timeout=120s")
    control_plane.run_kubectl(*wait)
    control_plane.run_kubectl("delete", "namespace", "controllers-work", "--timeout=120s")


def test_a_user_may_do_only_what_rbac_grants(control_plane: ControlPlane) -> None:
    eve = control_plane.kubeconfig_for_user("eve", groups=["outsiders"])
    refused = kubectl_as(control_plane, eve, "get", "secrets", "--namespace=kube-system")
    assert refused.returncode != 0
    assert 'User "eve" cannot list resource "secrets"' in refused.stderr
    viewers = ("create", "clusterrolebinding", "outsiders-view", "--clusterrole=view", "--group=outsiders")
    control_plane.run_kubectl(*viewers)
    assert kubectl_as(control_plane, eve, "get", "pods", "--namespace=default").returncode == 0


def test_a_node_may_touch_no_node_but_itself(control_plane: ControlPlane) -> None:
    config = control_plane.kubeconfig_for_user("system:node:mine", groups=["system:nodes"])
    node = json.dumps({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "not-mine"}})
    command = [str(control_plane.kubectl), "--kubeconfig", str(config), "create", "--filename=-"]
    refused = subprocess.run(command, input=node, capture_output=True, text=True, check=False)
    assert "is not allowed to modify node" in refused.stderr


def test_a_service_account_calls_under_its_own_name(control_plane: ControlPlane) -> None:
    control_plane.run_kubectl("create", "serviceaccount", "robot", "--namespace=default")
    robot = control_plane.kubeconfig_for_service_account("default", "robot")
    whoami = kubectl_as(control_plane, robot, "auth", "whoami", "--output=jsonpath={.status.userInfo.username}")
    assert whoami.stdout == "system:serviceaccount:default:robot"


def test_the_audit_log_counts_a_users_writes(control_plane: ControlPlane) -> None:
    since = dt.datetime.now(dt.UTC)
    writer = control_plane.kubeconfig_for_user("writer", groups=["system:masters"])
    for arguments in (
        ("create", "configmap", "counted", "--from-literal=a=1"),
        ("get", "configmap", "counted"),
        ("delete", "configmap", "counted"),
    ):
        assert kubectl_as(control_plane, writer, *arguments).returncode == 0
    counted = audit.writes(control_plane.audit_log, user="writer", since=since)
    assert [(write.verb, write.resource, write.name) for write in counted] == [
        ("create", "configmaps", "counted"),
        ("delete", "configmaps", "counted"),
    ]


def test_two_run_side_by_side_and_leave_no_process(tmp_path: Path) -> None:
    with running_control_plane(tmp_path / "a") as first, running_control_plane(tmp_path / "b") as second:
        first.run_kubectl("create", "namespace", "only-in-the-first")
        assert first.url != second.url
        assert "only-in-the-first" not in second.run_kubectl("get", "namespaces")
        clusters = {first.cluster, second.cluster}
        assert clusters <= {found.cluster for found in processes.find()}
    assert not clusters & {found.cluster for found in processes.find()}


OWNER = """
import sys, time
from pathlib import Path
from localcluster import control_plane
with control_plane(Path(sys.argv[1])) as plane:
    print(plane.cluster, flush=True)
    time.sleep(3600)
"""


def test_one_whose_owner_was_killed_is_ended_by_the_next(tmp_path: Path) -> None:
    command = [sys.executable, "-c", OWNER, str(tmp_path / "orphan")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True) as owner:
        assert owner.stdout is not None
        cluster = owner.stdout.readline().strip()
        os.kill(owner.pid, signal.SIGKILL)
    assert processes.find(cluster)
    controlplane.sweep()
    assert not processes.find(cluster)
    controlplane.stop(tmp_path / "orphan")


def test_a_part_that_dies_at_its_start_is_told_with_its_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(controlplane, "_apiserver", lambda *_, **__: ["--no-such-flag"])
    with (
        pytest.raises(controlplane.PartDiedError, match="unknown flag: --no-such-flag"),
        running_control_plane(tmp_path),
    ):
        pytest.fail("it must not start")


def test_the_env_file_points_a_shell_at_it(tmp_path: Path) -> None:
    state_dir = tmp_path / "state of mine"
    with running_control_plane(state_dir):
        env = write_env(state_dir, {"HF_ENDPOINT": "http://10.1.2.3:80"})
        script = 'source "$0" && kubectl get namespace default -o name && helm list -q && echo "$HF_ENDPOINT"'
        clean = {"PATH": os.environ["PATH"], "HOME": str(tmp_path)}
        told = subprocess.run(["bash", "-c", script, str(env)], env=clean, capture_output=True, text=True, check=True)
    assert told.stdout.split() == ["namespace/default", "http://10.1.2.3:80"]
