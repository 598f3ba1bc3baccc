"""What the chart's pods may do to a node, and what its ServiceAccounts may do to the cluster."""

from __future__ import annotations

import pytest

from lora_operator.settings import Settings
from support.chart import NAMESPACE, RELEASE, Helm, Object, Values, of_kind, operator_env

PERMITTED_VOLUMES = {"configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim", "projected"}
TOKEN_REVIEWS = [{"apiGroups": ["authentication.k8s.io"], "resources": ["tokenreviews"], "verbs": ["create"]}]


def pods(objects: list[Object]) -> list[Object]:
    """Return the pod specs that the chart makes."""
    return [obj["spec"]["template"]["spec"] for obj in of_kind(objects, "Deployment", "Job")]


def test_pods_keep_to_the_restricted_standard(helm: Helm, case: Values) -> None:
    found = pods(helm.render(case))
    assert len(found) == 2
    for pod in found:
        assert not {"hostNetwork", "hostPID", "hostIPC", "hostUsers"} & set(pod)
        assert not [volume for volume in pod.get("volumes", []) if not PERMITTED_VOLUMES & set(volume)]
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["runAsUser"] > 0
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        for container in pod["containers"]:
            context = container["securityContext"]
            assert context["allowPrivilegeEscalation"] is False
            assert context["capabilities"] == {"drop": ["ALL"]}
            assert not {"privileged", "procMount", "seLinuxOptions"} & set(context)
            assert not [port for port in container.get("ports", []) if "hostPort" in port]


def test_pods_are_stricter_than_the_standard_asks(helm: Helm, case: Values) -> None:
    for pod in pods(helm.render(case)):
        assert pod["enableServiceLinks"] is False
        assert not pod.get("initContainers")
        for container in pod["containers"]:
            assert container["securityContext"]["readOnlyRootFilesystem"] is True
            assert {"requests", "limits"} <= set(container["resources"])


def test_a_token_is_mounted_only_where_a_pod_asks_for_it(helm: Helm) -> None:
    objects = helm.render()
    assert [account["automountServiceAccountToken"] for account in of_kind(objects, "ServiceAccount")] == [False, False]
    assert [pod["automountServiceAccountToken"] for pod in pods(objects)] == [True, True]


def test_watching_namespaces_grants_nothing_else_in_the_cluster(helm: Helm) -> None:
    objects = helm.render({"watch": {"namespaces": ["team-a", "team-b"]}, "rbac": {"aggregateClusterRoles": False}})
    assert [role["rules"] for role in of_kind(objects, "ClusterRole")] == [TOKEN_REVIEWS]
    places = {(role["metadata"]["name"], role["metadata"]["namespace"]) for role in of_kind(objects, "Role")}
    everywhere = {(name, namespace) for name in (RELEASE, f"{RELEASE}-uninstall") for namespace in ("team-a", "team-b")}
    assert places == everywhere | {(f"{RELEASE}-own", NAMESPACE), (f"{RELEASE}-uninstall-own", NAMESPACE)}


def test_the_job_that_uninstalls_goes_where_the_operator_watched(helm: Helm) -> None:
    (job,) = of_kind(helm.render({"watch": {"namespaces": ["team-a", "team-b"]}}), "Job")
    (container,) = job["spec"]["template"]["spec"]["containers"]
    assert container["args"][-2:] == ["--watched=team-a", "--watched=team-b"]


@pytest.mark.parametrize("kind", ["ClusterRole", "Role"])
def test_no_role_has_a_wildcard(helm: Helm, kind: str) -> None:
    for role in of_kind(helm.render({"watch": {"namespaces": ["team-a"]} if kind == "Role" else {}}), kind):
        for rule in role["rules"]:
            assert "*" not in [*rule["apiGroups"], *rule["resources"], *rule["verbs"]]


def test_every_binding_binds_a_role_of_the_chart_to_an_account_of_the_chart(helm: Helm, case: Values) -> None:
    objects = helm.render(case)
    accounts = {account["metadata"]["name"] for account in of_kind(objects, "ServiceAccount")}
    roles = {
        (role["kind"], role["metadata"]["name"], role["metadata"].get("namespace"))
        for role in of_kind(objects, "Role", "ClusterRole")
    }
    for binding in of_kind(objects, "RoleBinding", "ClusterRoleBinding"):
        ref = binding["roleRef"]
        assert (ref["kind"], ref["name"], binding["metadata"].get("namespace")) in roles
        assert [(subject["name"] in accounts, subject["namespace"]) for subject in binding["subjects"]] == [
            (True, NAMESPACE)
        ]


def test_without_rbac_somebody_else_grants(helm: Helm) -> None:
    objects = helm.render({"rbac": {"create": False, "aggregateClusterRoles": False}})
    assert of_kind(objects, "Role", "ClusterRole", "RoleBinding", "ClusterRoleBinding") == []
    accounts = {account["metadata"]["name"] for account in of_kind(objects, "ServiceAccount")}
    assert accounts == {RELEASE, f"{RELEASE}-uninstall"}, "whom to grant it to"


def test_without_progress_no_port_is_open_and_no_token_is_looked_at(helm: Helm) -> None:
    values = {"progress": {"enabled": False}, "rbac": {"aggregateClusterRoles": False}}
    objects = helm.render(values)
    (service,) = of_kind(objects, "Service")
    (deployment,) = of_kind(objects, "Deployment")
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    assert [port["name"] for port in service["spec"]["ports"]] == ["metrics"]
    assert [port["name"] for port in container["ports"]] == ["metrics"]
    assert Settings.from_environment(operator_env(objects)).progress_url == ""
    roles = of_kind(objects, "Role", "ClusterRole")
    assert TOKEN_REVIEWS not in [role["rules"] for role in roles]
    assert f"{RELEASE}-own" not in {role["metadata"]["name"] for role in roles}
