"""The chart at a real apiserver: everything is taken, and the operator gets the rights that it uses and no other."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

import lora_operator
from localcluster import ControlPlane
from lora_operator.clients import kube
from lora_operator.clients.kube import WATCHED, Resource
from support.apiserver import ApiServer
from support.chart import CASES, CHART, NAMESPACE, RELEASE, Helm, Object, Values, of_kind

TEAMS = ("team-a", "team-b")
OTHER = "nobodys"

Right = tuple[str, str, str, str]
"""API group, resource, verb, and the name where the right is for one object alone."""

# Every call of the operator. What a pass needs another right for comes here first, with where it is used.
USED = {
    ("lora-operator.io", "loraengines"): {"list", "watch", "patch"},  # watching; finalisers
    ("lora-operator.io", "loraadapters"): {"get", "list", "watch", "create", "patch"},  # and output.adapter of a job
    ("lora-operator.io", "loratrainingjobs"): {"list", "watch", "delete"},  # and ttlSecondsAfterFinished
    ("lora-operator.io", "loraengines/status"): {"patch"},  # reporting
    ("lora-operator.io", "loraadapters/status"): {"patch"},
    ("lora-operator.io", "loratrainingjobs/status"): {"patch"},
    ("lora-operator.io", "loratrainingjobs/finalizers"): {"update"},  # blockOwnerDeletion of the Job
    ("apps", "deployments"): {"get", "list", "watch", "patch"},  # adopting
    ("", "pods"): {"list", "watch"},
    ("", "services"): {"get"},  # the Service called vllm
    ("", "namespaces"): {"get"},  # allowedNamespaces
    ("", "configmaps"): {"get", "list", "watch", "create", "patch", "delete"},  # shards, records, specs, data sets
    ("", "secrets"): {"get", "create", "patch", "delete"},  # an engine's own, and Hub tokens
    ("batch", "jobs"): {"list", "watch", "create", "patch"},  # trainers; they go by their owner
    ("events.k8s.io", "events"): {"create"},
}
TOKEN_REVIEW: Right = ("authentication.k8s.io", "tokenreviews", "create", "")
OWN_SECRET: set[Right] = {("", "secrets", verb, "") for verb in ("get", "create")}
EVERYTHING: set[Right] = {(*resource, verb, "") for resource, verbs in USED.items() for verb in verbs}


@pytest.fixture(scope="session")
def api(control_plane: ControlPlane) -> ApiServer:
    """Return the apiserver, with the namespaces that values name."""
    server = ApiServer(control_plane)
    restricted = {"pod-security.kubernetes.io/enforce": "restricted"}
    for name in (NAMESPACE, *TEAMS, OTHER):
        server.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": restricted}})
    return server


@pytest.fixture(scope="session")
def cluster_helm(control_plane: ControlPlane, api: ApiServer, tmp_path_factory: pytest.TempPathFactory) -> Helm:
    """Return helm over the control plane."""
    return Helm(control_plane.helm, tmp_path_factory.mktemp("helm-cluster"), control_plane.kubeconfig)


@pytest.fixture(scope="session")
def notes(cluster_helm: Helm) -> Iterator[str]:
    """Install the chart for the whole cluster, and return what helm printed."""
    yield install(cluster_helm, RELEASE, {})
    cluster_helm("uninstall", RELEASE, "--namespace", NAMESPACE, "--no-hooks")


def install(helm: Helm, release: str, values: Values) -> str:
    """Install or upgrade the chart; take over CRDs that another tier applied to this apiserver."""
    arguments = ("upgrade", "--install", release, str(CHART), "--namespace", NAMESPACE, "--take-ownership")
    return helm(*arguments, values=values)


def test_the_apiserver_takes_every_object(control_plane: ControlPlane, api: ApiServer, helm: Helm) -> None:
    rendered = [obj for values in CASES.values() for obj in helm.render(values)]
    different = {json.dumps(obj, sort_keys=True) for obj in rendered}
    arguments = ("apply", "--server-side", "--force-conflicts", "--dry-run=server", "--validate=strict", "-f", "-")
    taken = control_plane.run_kubectl(*arguments, stdin="\n---\n".join(different))
    assert len(taken.splitlines()) == len(different)


def test_admission_takes_the_pods_where_the_restricted_standard_is_enforced(
    api: ApiServer, helm: Helm, case: Values
) -> None:
    for workload in of_kind(helm.render(case), "Deployment", "Job"):
        # Without its account: admission would look for that first.
        spec = workload["spec"]["template"]["spec"] | {"serviceAccountName": "default", "priorityClassName": ""}
        metadata = {"name": "looked-at", "namespace": OTHER}
        api.create({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}, dry_run=True)


def test_the_operator_may_do_what_it_does_and_no_more(control_plane: ControlPlane, notes: str) -> None:
    assert rights(control_plane, RELEASE, OTHER) == EVERYTHING | {TOKEN_REVIEW}


def test_the_table_of_rights_has_what_the_code_reads() -> None:
    """`apply`, `create` and `delete` take objects: what they write, the tests of each pass show."""
    needed = {(resource, verb) for resource in WATCHED for verb in ("list", "watch")} | set(reads_in_code())
    missing = [
        (resource.plural, verb)
        for resource, verb in needed
        if verb not in USED.get((resource.api_version.rpartition("/")[0], resource.plural), set())
    ]
    assert missing == []
    granted_reads = {(resource, verb) for resource, verbs in USED.items() for verb in verbs & {"get", "list", "watch"}}
    used_reads = {((resource.api_version.rpartition("/")[0], resource.plural), verb) for resource, verb in needed}
    assert granted_reads == used_reads


def reads_in_code() -> Iterator[tuple[Resource, str]]:
    """Yield what the operator's modules get and list by the name of a resource."""
    (folder,) = map(Path, lora_operator.__path__)
    for path in folder.rglob("*.py"):
        if path.name == "uninstall.py":
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute) or not node.args:
                continue
            first = node.args[0]
            if node.func.attr in {"get", "list"} and isinstance(first, ast.Name):
                resource = getattr(kube, first.id, None)
                if isinstance(resource, Resource):
                    yield resource, node.func.attr


def test_the_notes_print_first_objects_that_the_apiserver_takes(api: ApiServer, notes: str) -> None:
    documents = re.findall(r"<<YAML\n(.*?)\nYAML\n", notes, flags=re.DOTALL)
    filled = [yaml.safe_load(re.sub(r"<[^>]+>", "acme/tiny", text)) for text in documents]
    assert [obj["kind"] for obj in filled] == ["LoRAEngine", "LoRAAdapter"]
    for obj in filled:
        spec = {**obj["spec"]}
        if "targetRef" in spec:
            spec["targetRef"]["name"] = "vllm"
        else:
            spec["engineRef"]["namespace"] = TEAMS[0]
        api.create(obj | {"metadata": obj["metadata"] | {"namespace": OTHER}, "spec": spec}, dry_run=True)


def test_a_release_narrows_its_rights_mends_its_crds_and_leaves_them(
    control_plane: ControlPlane, api: ApiServer, cluster_helm: Helm
) -> None:
    release, account = "story", "story-lora-operator"
    install(cluster_helm, release, {})
    drop = json.dumps([{"op": "remove", "path": "/spec/names/shortNames"}])
    control_plane.run_kubectl("patch", "crd", "loraadapters.lora-operator.io", "--type=json", "--patch", drop)

    install(cluster_helm, release, {"watch": {"namespaces": list(TEAMS)}})
    names = control_plane.run_kubectl("get", "crd", "loraadapters.lora-operator.io", "-o", "jsonpath={.spec.names}")
    assert json.loads(names)["shortNames"] == ["lad"]
    assert rights(control_plane, account, TEAMS[0]) == EVERYTHING | {TOKEN_REVIEW}
    assert rights(control_plane, account, OTHER) == {TOKEN_REVIEW}
    assert rights(control_plane, account, NAMESPACE) == OWN_SECRET | {TOKEN_REVIEW}

    cluster_helm("uninstall", release, "--namespace", NAMESPACE, "--no-hooks")
    assert len(control_plane.run_kubectl("get", "crd", "-o", "name").splitlines()) == 3
    ours = ("-A", "-l", f"app.kubernetes.io/instance={release}")
    assert control_plane.run_kubectl("get", "deployments,services,serviceaccounts,roles,clusterroles", *ours) == ""


def rights(plane: ControlPlane, account: str, namespace: str) -> set[Right]:
    """Return what RBAC gives an account of the release's namespace that it does not give every account."""
    return _rules(plane, account, namespace) - _rules(plane, "default", namespace)


def _rules(plane: ControlPlane, account: str, namespace: str) -> set[Right]:
    review: Object = {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SelfSubjectRulesReview",
        "spec": {"namespace": namespace},
    }
    path = "/apis/authorization.k8s.io/v1/selfsubjectrulesreviews"
    who = f"--as=system:serviceaccount:{NAMESPACE}:{account}"
    answer = json.loads(plane.run_kubectl("create", f"--raw={path}", "-f", "-", who, stdin=json.dumps(review)))
    return {
        (group, resource, verb, name)
        for rule in answer["status"]["resourceRules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
        for name in rule.get("resourceNames") or [""]
    }
