"""Adopting and leaving somebody's Deployment on a real apiserver: nothing of his is lost, nothing of ours is forced.

Every way in which people change a Deployment that has been adopted, as docs/operations.md lists them.
"""

from __future__ import annotations

import copy
import datetime as dt
import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from localcluster import ControlPlane, audit
from localcluster import control_plane as running_control_plane
from support.operating import Operator, eventually, running_operator
from support.site import Site, passes

Object = dict[str, Any]
ROOT = Path(__file__).parents[2]
UPDATES = {"name": "VLLM_ALLOW_RUNTIME_LORA_UPDATING", "value": "True"}


def deployment(**container: Any) -> Object:
    """Return what a user's file says."""
    engine = {
        "name": "vllm",
        "image": "example.org/serving:1",
        "command": ["vllm", "serve", "acme/tiny", "--enable-lora"],
        "env": [{"name": "HIS", "value": "1"}],
        "volumeMounts": [{"name": "models", "mountPath": "/models"}],
    }
    pod = {"containers": [engine | container], "volumes": [{"name": "models", "emptyDir": {}}]}
    app = {"app": "vllm"}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "vllm", "labels": {"his": "own"}},
        "spec": {
            "replicas": 1,
            "selector": {"matchLabels": app},
            "template": {"metadata": {"labels": app}, "spec": pod},
        },
    }


def engine(**spec: Any) -> Object:
    return {
        "apiVersion": "lora-operator.io/v1alpha1",
        "kind": "LoRAEngine",
        "metadata": {"name": "llama"},
        "spec": {"targetRef": {"name": "vllm"}} | spec,
    }


@pytest.fixture
def site(kinds: ControlPlane, operator: Operator, request: pytest.FixtureRequest) -> Site:
    """Return a namespace of the test's own."""
    name = request.node.name.removeprefix("test_").replace("_", "-").split("[")[0]
    return Site.made(kinds, name[:60].strip("-"))


def live(site: Site) -> Object:
    found = site.get("deployment", "vllm")
    assert found is not None
    return found


def pod_spec(site: Site) -> Object:
    spec: Object = live(site)["spec"]["template"]["spec"]
    return spec


def adopted(site: Site, user: Object | None = None, **spec: Any) -> Object:
    """Apply a user's Deployment and adopt it; return it as it is then."""
    site.apply(deployment() if user is None else user)
    site.apply(engine(**spec))
    site.until("loraengine", "llama", "Adopted", status="True")
    return live(site)


def has_agent(site: Site) -> bool:
    pod = pod_spec(site)
    agents = [item["name"] for item in pod.get("initContainers", [])]
    mounts = [mount["name"] for item in pod["containers"] for mount in item.get("volumeMounts", [])]
    return agents == ["lora-agent"] and "lora-adapters" in mounts


def test_adopting_adds_what_is_ours_in_one_rollout_and_changes_nothing_of_his(site: Site) -> None:
    user = site.apply(deployment())
    after = adopted(site)

    assert after["metadata"]["generation"] == user["metadata"]["generation"] + 1
    assert has_agent(site)
    [container] = pod_spec(site)["containers"]
    assert {"name": "HIS", "value": "1"} in container["env"]
    assert UPDATES in container["env"]
    assert {"name": "models", "mountPath": "/models"} in container["volumeMounts"]
    assert (container["image"], after["spec"]["replicas"]) == ("example.org/serving:1", 1)
    names = {item["metadata"]["name"] for item in site.items("configmaps", "-l", "lora-operator.io/engine=llama")}
    assert names == {f"llama-lora-{index}" for index in range(8)} | {"llama-lora-adoption"}
    secret = site.get("secret", "llama-lora")
    assert secret is not None
    assert set(secret["data"]) == {"token", "tls.crt", "tls.key"}
    reasons = {event["reason"] for event in site.events_of("llama")}
    assert "RuntimeLoadingOpen" in eventually(lambda: reasons, "Events")


def test_after_convergence_a_pass_writes_nothing(site: Site, operator: Operator) -> None:
    adopted(site)
    site.until("loraengine", "llama", "Reconciling", status="True")
    settle(site, operator, "one")
    since = dt.datetime.now(dt.UTC)
    settle(site, operator, "two")

    written = audit.writes(site.plane.audit_log, user=operator.user, since=since)
    assert [write for write in written if write.namespace == site.namespace] == []


def settle(site: Site, operator: Operator, mark: str) -> None:
    """Wake the engine's pass and wait until some passes have run."""
    before = passes(operator, "LoRAEngine")
    site.kubectl("annotate", "--overwrite", "loraengine", "llama", f"example.org/mark={mark}")
    eventually(lambda: passes(operator, "LoRAEngine") > before, "a pass")


def new_image(container: str = "vllm") -> Object:
    return deployment(name=container, image="example.org/serving:2")


def by_kubectl_apply(site: Site) -> None:
    site.apply(new_image())
    done = subprocess.run(
        [str(site.plane.kubectl), "--kubeconfig", str(site.plane.kubeconfig), "-n", site.namespace, "diff", "-f", "-"],
        input=json.dumps(new_image()),
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, ""), done.stderr


def by_server_side_apply(site: Site) -> None:
    site.apply(new_image(), "--server-side", "--force-conflicts", "--field-manager=flux")


def by_set_image(site: Site) -> None:
    site.kubectl("set", "image", "deployment/vllm", "vllm=example.org/serving:2")


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(by_kubectl_apply, id="kubectl-apply"),
        pytest.param(by_server_side_apply, id="server-side-apply"),
        pytest.param(by_set_image, id="kubectl-set-image"),
    ],
)
def test_his_new_image_goes_in_and_ours_stays(
    kinds: ControlPlane, operator: Operator, change: Callable[[Site], None], request: pytest.FixtureRequest
) -> None:
    site = Site.made(kinds, f"new-image-{request.node.callspec.id}")
    adopted(site)

    change(site)

    assert pod_spec(site)["containers"][0]["image"] == "example.org/serving:2"
    assert has_agent(site)
    assert UPDATES in pod_spec(site)["containers"][0]["env"]


def test_kubectl_scale_is_left_alone(site: Site, operator: Operator) -> None:
    adopted(site)
    site.kubectl("scale", "deployment/vllm", "--replicas=3")
    settle(site, operator, "scaled")

    assert live(site)["spec"]["replicas"] == 3
    assert has_agent(site)


def test_helm_upgrades_and_rolls_back_what_is_adopted(site: Site, tmp_path: Path) -> None:
    chart = tmp_path / "chart"
    (chart / "templates").mkdir(parents=True)
    (chart / "Chart.yaml").write_text("apiVersion: v2\nname: llm\nversion: 0.1.0\n")
    template = yaml.safe_dump(deployment()).replace("example.org/serving:1", "{{ .Values.image }}")
    (chart / "templates" / "deployment.yaml").write_text(template)
    site.helm("install", "llm", str(chart), "--set", "image=example.org/serving:1")
    site.apply(engine())
    site.until("loraengine", "llama", "Adopted", status="True")

    for arguments, image in (
        (("upgrade", "llm", str(chart), "--set", "image=example.org/serving:2"), "example.org/serving:2"),
        (("rollback", "llm", "1"), "example.org/serving:1"),
        (("upgrade", "llm", str(chart), "--set", "image=x:3", "--server-side=false"), "x:3"),
    ):
        site.helm(*arguments)
        assert pod_spec(site)["containers"][0]["image"] == image
        assert has_agent(site)


def test_a_replaced_deployment_gets_it_back_once_and_is_then_left_to_its_owner(site: Site) -> None:
    adopted(site)

    site.kubectl("replace", "-f", "-", given=deployment())
    eventually(lambda: has_agent(site), "the agent to be back")
    stamped = eventually(lambda: "reverted" in record(site) and record(site)["reverted"], "the record of it")
    site.kubectl("replace", "-f", "-", given=deployment())
    refused = site.until("loraengine", "llama", "Ready", status="False", reason="Contended")

    assert stamped
    assert "kubectl" in refused["message"]
    assert not has_agent(site)
    assert site.condition("loraengine", "llama", "Contended") is not None
    assert site.condition("loraengine", "llama", "Stalled") is not None


def record(site: Site) -> Object:
    found = site.get("configmap", "llama-lora-adoption")
    assert found is not None
    parsed: Object = json.loads(found["data"]["adoption.json"])
    return parsed


def test_a_container_renamed_by_kubectl_apply_is_found_again(site: Site) -> None:
    adopted(site)

    site.apply(deployment(name="llm"))

    eventually(lambda: has_agent(site), "the agent to be with the renamed container")
    [container] = pod_spec(site)["containers"]
    assert container["name"] == "llm"
    assert UPDATES in container["env"]


def test_the_variable_that_he_sets_himself_is_not_ours(site: Site) -> None:
    adopted(site, deployment(env=[UPDATES | {"value": "true"}]))

    [container] = pod_spec(site)["containers"]
    assert container["env"] == [UPDATES | {"value": "true"}]
    site.apply(deployment(env=[UPDATES | {"value": "1"}]), "--server-side", "--force-conflicts")


def test_what_another_manager_holds_is_a_conflict_that_is_told_and_never_forced(site: Site) -> None:
    mounts = [{"name": "models", "mountPath": "/adapters"}]
    site.apply(deployment(volumeMounts=mounts), "--server-side", "--field-manager=flux")
    site.apply(engine())

    refused = site.until("loraengine", "llama", "Adopted", status="False", reason="FieldConflict")

    assert "flux" in refused["message"]
    assert "/adapters" in refused["message"]
    assert pod_spec(site)["containers"][0]["volumeMounts"] == mounts
    assert "initContainers" not in pod_spec(site)


def test_a_conflict_that_is_resolved_is_adopted_without_a_nudge(site: Site) -> None:
    site.apply(deployment(env=[UPDATES | {"value": "False"}]))
    site.apply(engine())
    site.until("loraengine", "llama", "Adopted", status="False", reason="FieldConflict")

    site.apply(deployment())

    site.until("loraengine", "llama", "Adopted", status="True")
    assert has_agent(site)


def test_deleting_the_engine_gives_everything_back(site: Site) -> None:
    before = site.apply(deployment())
    adopted(site)

    site.kubectl("delete", "loraengine", "llama", "--timeout=120s")

    after = live(site)
    assert after["spec"] == before["spec"]
    assert after["metadata"]["labels"] == {"his": "own"}
    assert "lora-operator" not in {entry["manager"] for entry in after["metadata"]["managedFields"]}
    assert site.items("configmaps", "-l", "lora-operator.io/engine") == []
    assert site.get("secret", "llama-lora") is None


def test_of_two_engines_for_one_deployment_the_second_is_refused_and_leaves_it_alone(site: Site) -> None:
    adopted(site)
    before = live(site)
    second = engine()
    second["metadata"]["name"] = "second"
    site.apply(second)

    refused = site.until("loraengine", "second", "Adopted", status="False", reason="TargetTaken")
    site.kubectl("delete", "loraengine", "second", "--timeout=120s")

    assert "LoRAEngine llama" in refused["message"]
    assert live(site)["spec"] == before["spec"]
    assert has_agent(site)


def test_what_lies_beside_the_engine_is_written_again_when_it_is_deleted(site: Site, operator: Operator) -> None:
    adopted(site)
    revision = json.loads((site.get("configmap", "llama-lora-3") or {})["data"]["manifest.json"])["revision"]

    site.kubectl("delete", "configmap/llama-lora-3", "configmap/llama-lora-adoption", "secret/llama-lora")
    settle(site, operator, "deleted")

    again = eventually(lambda: site.get("configmap", "llama-lora-3"), "the shard")
    assert json.loads(again["data"]["manifest.json"])["revision"] >= revision
    eventually(lambda: site.get("secret", "llama-lora"), "the Secret")
    eventually(lambda: site.get("configmap", "llama-lora-adoption"), "the record")
    assert live(site)["metadata"]["generation"] == 2


def test_deleting_an_engine_whose_deployment_is_gone_ends(site: Site) -> None:
    adopted(site)
    site.kubectl("delete", "deployment", "vllm", "--timeout=120s")

    site.kubectl("delete", "loraengine", "llama", "--timeout=120s")

    assert site.get("secret", "llama-lora") is None


def test_an_agent_that_never_answers_holds_up_a_deletion_no_longer_than_its_bound(site: Site) -> None:
    adopted(site)
    pod = eventually(lambda: site.items("pods", "-l", "lora-operator.io/engine=llama"), "a pod with the agent")[0]
    name = pod["metadata"]["name"]
    running = json.dumps({"status": {"phase": "Running"}})
    site.kubectl("patch", "pod", name, "--subresource=status", "--type=merge", "-p", running)

    site.kubectl("delete", "loraengine", "llama", "--timeout=120s")

    assert not has_agent(site)
    left = [event["note"] for event in site.events_of("llama") if event["reason"] == "CleanupIncomplete"]
    assert [note for note in left if name in note]


def test_a_suspended_engine_is_not_adopted_until_it_is_resumed(site: Site, operator: Operator) -> None:
    site.apply(deployment())
    suspended = engine()
    suspended["metadata"]["annotations"] = {"lora-operator.io/suspend": "true"}
    site.apply(suspended)
    settle(site, operator, "suspended")

    assert "initContainers" not in pod_spec(site)
    assert "status" not in (site.get("loraengine", "llama") or {})

    site.kubectl("annotate", "loraengine", "llama", "lora-operator.io/suspend-")
    site.until("loraengine", "llama", "Adopted", status="True")


def test_another_agents_image_in_the_spec_rolls_it_out(site: Site) -> None:
    adopted(site)

    site.apply(engine(agent={"image": "example.org/agent:9"}))

    eventually(lambda: pod_spec(site)["initContainers"][0]["image"] == "example.org/agent:9", "the new image")
    eventually(
        lambda: (site.get("loraengine", "llama") or {})["status"].get("agentImage") == "example.org/agent:9", "it"
    )


def test_a_newer_operator_restarts_no_engine_pod_and_says_that_the_agent_is_older(tmp_path: Path) -> None:
    with running_control_plane(tmp_path / "plane") as plane:
        for crds in (("apply", "--server-side"), ("wait", "--for=condition=Established", "--timeout=120s")):
            plane.run_kubectl(*crds, "-f", str(ROOT / "crds"))
        site = Site.made(plane, "upgrade")
        with running_operator(plane, tmp_path / "old", agent_image="example.org/agent:1"):
            before = copy.deepcopy(adopted(site))
        resources = json.dumps({"limits": {"memory": "1Gi"}})
        with running_operator(
            plane, tmp_path / "new", agent_image="example.org/agent:2", agent_resources=resources, pod_env="[]"
        ):
            outdated = site.until("loraengine", "llama", "AgentOutdated", status="True")

        assert "example.org/agent:2" in outdated["message"]
        assert live(site)["spec"] == before["spec"]
        assert live(site)["metadata"]["generation"] == before["metadata"]["generation"]
