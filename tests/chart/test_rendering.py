"""What the chart renders: the settings of the operator, images, the CRDs, and what other people are given."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path

import pytest
import yaml

from generators import chart, crds
from lora_operator.settings import PREFIX, Settings
from support.chart import CHART, NAMESPACE, RELEASE, Helm, Object, Values, named, of_kind, operator_env

SHARED = ("HF_ENDPOINT", "HF_HUB_DISABLE_XET", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "LORA_CA_BUNDLE")


def test_lint_has_nothing_to_say(helm: Helm, case: Values) -> None:
    assert "0 chart(s) failed" in helm("lint", "--strict", str(CHART), values=case)


def test_every_setting_is_written_and_every_variable_is_a_setting(helm: Helm, case: Values) -> None:
    (deployment,) = of_kind(helm.render(case), "Deployment")
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    written = {entry["name"] for entry in container["env"] if entry["name"].startswith(PREFIX)}
    assert written == {f"{PREFIX}{field.name.upper()}" for field in dataclasses.fields(Settings)}


def test_the_defaults_of_chart_and_operator_are_one(helm: Helm) -> None:
    read = Settings.from_environment(operator_env(helm.render()))
    expected = Settings(progress_url=f"https://{RELEASE}.{NAMESPACE}.svc")
    parsed = ("agent_resources",)
    assert [json.loads(getattr(read, name)) for name in parsed] == [
        json.loads(getattr(expected, name)) for name in parsed
    ]
    same = {name: getattr(expected, name) for name in parsed}
    assert dataclasses.replace(read, **same) == expected


def test_what_reaches_the_operator_reaches_agents_and_trainers(helm: Helm) -> None:
    values = {
        "hub": {"endpoint": "https://hub.example.com", "disableXet": True},
        "proxy": {"httpProxy": "http://p:1", "httpsProxy": "http://p:2", "noProxy": "10.0.0.0/8"},
        "caBundle": "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n",
        "imagePullSecrets": [{"name": "one"}, {"name": "two"}],
    }
    objects = helm.render(values)
    env = operator_env(objects)
    settings = Settings.from_environment(env)
    passed_on = {entry["name"]: entry["value"] for entry in json.loads(settings.pod_env)}
    assert passed_on == {name: env[name] for name in SHARED}
    assert passed_on["LORA_CA_BUNDLE"] == values["caBundle"]
    assert passed_on["HF_ENDPOINT"] == "https://hub.example.com"
    assert passed_on["NO_PROXY"].split(",")[0] == "10.0.0.0/8"
    assert {"127.0.0.1", ".svc", "$(KUBERNETES_SERVICE_HOST)"} <= set(passed_on["NO_PROXY"].split(","))
    assert settings.image_pull_secrets == ("one", "two")
    for workload in of_kind(objects, "Deployment", "Job"):
        assert workload["spec"]["template"]["spec"]["imagePullSecrets"] == values["imagePullSecrets"]


def test_without_a_mirror_or_a_proxy_pods_get_nothing_of_the_kind(helm: Helm) -> None:
    env = operator_env(helm.render())
    assert not set(SHARED) & set(env)
    assert json.loads(env["LORA_OPERATOR_POD_ENV"]) == []


def test_a_reference_in_a_trainers_env_is_expanded_in_the_trainer(helm: Helm) -> None:
    entries = [{"name": "WHERE", "value": "$(NODE_NAME)"}]
    (deployment,) = of_kind(helm.render({"trainer": {"env": entries}}), "Deployment")
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    (raw,) = (entry["value"] for entry in container["env"] if entry["name"] == "LORA_OPERATOR_TRAINER_ENV")
    assert "$$(NODE_NAME)" in raw
    assert json.loads(raw.replace("$$(", "$(")) == entries


@pytest.mark.parametrize("program", ["operator", "agent", "trainer"])
def test_an_image_comes_from_the_registry_by_digest_before_tag(helm: Helm, program: str) -> None:
    digest = f"sha256:{'a' * 64}"
    image = {"repository": f"mirrored-{program}", "tag": "9"}
    tagged = _image(helm.render({"registry": "r.example.com/x", program: {"image": image}}), program)
    assert tagged == f"r.example.com/x/mirrored-{program}:9"
    pinned = helm.render({"registry": "r.example.com/x", program: {"image": image | {"digest": digest}}})
    assert _image(pinned, program) == f"r.example.com/x/mirrored-{program}@{digest}"
    if program == "operator":
        (job,) = of_kind(pinned, "Job")
        assert job["spec"]["template"]["spec"]["containers"][0]["image"] == _image(pinned, program)


def _image(objects: list[Object], program: str) -> str:
    if program != "operator":
        return operator_env(objects)[f"LORA_OPERATOR_{program.upper()}_IMAGE"]
    (deployment,) = of_kind(objects, "Deployment")
    image: str = deployment["spec"]["template"]["spec"]["containers"][0]["image"]
    return image


def test_another_agent_image_changes_one_variable_of_the_operator_and_nothing_else(helm: Helm) -> None:
    before, after = helm.render(), helm.render({"agent": {"image": {"tag": "next"}}})
    changed = [new for old, new in zip(before, after, strict=True) if old != new]
    assert [obj["kind"] for obj in changed] == ["Deployment"]
    old_env, new_env = operator_env(before), operator_env(after)
    assert {name for name in old_env if old_env[name] != new_env[name]} == {"LORA_OPERATOR_AGENT_IMAGE"}


def test_the_crds_are_the_generated_ones_and_outlive_the_release(helm: Helm) -> None:
    generated = {path.name: yaml.safe_load(text) for path, text in crds.files().items() if _is_readable_crd(path)}
    rendered = {crd["metadata"]["name"]: crd for crd in of_kind(helm.render(), "CustomResourceDefinition")}
    assert len(generated) == len(rendered) == 3
    for crd in generated.values():
        metadata = rendered[crd["metadata"]["name"]]["metadata"]
        assert metadata.pop("labels")["app.kubernetes.io/managed-by"] == "Helm"
        assert metadata.pop("annotations") == {"helm.sh/resource-policy": "keep"}
        assert rendered[crd["metadata"]["name"]] == crd


def _is_readable_crd(path: Path) -> bool:
    return path.parent.name == "crds" and path.parent.parent.name != "files"


def test_no_crds_where_somebody_else_applies_them(helm: Helm) -> None:
    assert not of_kind(helm.render({"crds": {"enabled": False}}), "CustomResourceDefinition")


def test_a_release_of_another_name_says_whose_objects_they_are(helm: Helm) -> None:
    for obj in helm.render(release="team-a"):
        if obj["kind"] != "CustomResourceDefinition":
            assert obj["metadata"]["name"].startswith("team-a-lora-operator")
    assert len(named(helm.render(release="x" * 53), "Deployment", f"{'x' * 52}")["metadata"]["name"]) <= 63


def test_tenants_may_not_touch_engines(helm: Helm) -> None:
    roles = [role for role in of_kind(helm.render(), "ClusterRole") if _aggregates_to(role, "edit")]
    writable = {
        resource
        for role in roles
        for rule in role["rules"]
        if set(rule["verbs"]) - {"get", "list", "watch"}
        for resource in rule["resources"]
    }
    assert writable == {"loraadapters", "loratrainingjobs"}
    assert not [
        role
        for role in of_kind(helm.render({"rbac": {"aggregateClusterRoles": False}}), "ClusterRole")
        if any("aggregate-to" in label for label in role["metadata"]["labels"])
    ]


def _aggregates_to(role: Object, name: str) -> bool:
    return f"rbac.authorization.k8s.io/aggregate-to-{name}" in role["metadata"]["labels"]


def test_selectors_find_the_operators_pod_and_no_other(helm: Helm, case: Values) -> None:
    objects = helm.render(case)
    (deployment,), (service,), (job,) = (of_kind(objects, kind) for kind in ("Deployment", "Service", "Job"))
    selector = service["spec"]["selector"]
    assert selector == deployment["spec"]["selector"]["matchLabels"]
    assert selector.items() <= deployment["spec"]["template"]["metadata"]["labels"].items()
    assert not job["spec"]["template"].get("metadata", {}).get("labels")
    assert {port["targetPort"] for port in service["spec"]["ports"]} == {"metrics", "progress"}


def test_ports_reach_container_service_and_settings(helm: Helm) -> None:
    objects = helm.render({"metrics": {"port": 9000}, "progress": {"port": 9443}})
    settings = Settings.from_environment(operator_env(objects))
    (deployment,) = of_kind(objects, "Deployment")
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    opened = {port["name"]: port["containerPort"] for port in container["ports"]}
    assert opened == {"metrics": settings.metrics_port, "progress": settings.progress_port}
    assert opened == {"metrics": 9000, "progress": 9443}


def test_where_the_operator_runs_is_up_to_the_values(helm: Helm) -> None:
    wishes = {
        "nodeSelector": {"disk": "ssd"},
        "tolerations": [{"key": "gpu", "operator": "Exists"}],
        "affinity": {"nodeAffinity": {}},
        "priorityClassName": "system-cluster-critical",
    }
    given = {"operator": {**wishes, "podAnnotations": {"a": "b"}, "podLabels": {"c": "d"}}}
    objects = helm.render(given | {"serviceAccount": {"name": "robot", "annotations": {"e": "f"}}})
    (deployment,) = of_kind(objects, "Deployment")
    template = deployment["spec"]["template"]
    assert {name: template["spec"][name] for name in wishes} == wishes
    assert template["metadata"]["annotations"] == {"a": "b"}
    assert template["metadata"]["labels"]["c"] == "d"
    assert template["spec"]["serviceAccountName"] == "robot"
    assert named(objects, "ServiceAccount", "robot")["metadata"]["annotations"] == {"e": "f"}


def test_every_value_is_used_by_a_template_and_templates_use_no_other() -> None:
    text = "".join(path.read_text() for path in (CHART / "templates").iterdir())
    without_comments = re.sub(r"{{-? */\*.*?\*/", "", text, flags=re.DOTALL)
    used = {tuple(path.split(".")) for path in re.findall(r"\.Values\.([A-Za-z.]+)", without_comments)}
    values = {value.path for value in chart.values((CHART / "values.yaml").read_text())}
    assert not [path for path in values if not any(path[: len(use)] == use for use in used)]
    assert not [use for use in used if not any(path[: len(use)] == use for path in values)]
