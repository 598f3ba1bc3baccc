"""Adopting: what is injected, when the patch is made anew, and when it is put back."""

from __future__ import annotations

import copy
import dataclasses
import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from lora_operator.lora_engine import adoption
from lora_operator.lora_engine.manifests import AGENT
from lora_operator.lora_engine.observed import Observed
from lora_operator.lora_engine.plan import Plan, plan
from lora_operator.protocol import door, manifest
from support.engine_passes import DEFAULTS, carried_out, make_observed
from support.objects import BASE, make_container, make_deployment, make_engine, make_entry

Object = dict[str, Any]
NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)
ADOPTED = {
    "conditions": [
        {"type": "Adopted", "status": "True", "reason": "Adopted", "lastTransitionTime": "2026-11-22T11:00:00Z"}
    ]
}


def adopt(observed: Observed) -> Observed:
    """Return what a pass observes after the first has adopted the Deployment."""
    return carried_out(observed, plan(observed, now=NOW))


def replaced(observed: Observed, deployment: Object | None = None, **spec: Any) -> Observed:
    """Return what a pass observes after somebody replaced an adopted Deployment, or changed the LoRAEngine."""
    engine = make_engine(**spec) | {"status": ADOPTED}
    values = {field.name: getattr(observed, field.name) for field in dataclasses.fields(observed)}
    return make_observed(
        engine,
        deployment or observed.deployment,
        **{name: values[name] for name in values if name not in {"engine", "obj", "deployment"}},
    )


def template(todo: Plan) -> Object:
    assert todo.record is not None
    spec: Object = todo.record.patch["spec"]["template"]["spec"]
    return spec


def agent_env(todo: Plan) -> dict[str, str]:
    return {entry["name"]: entry.get("value", "") for entry in template(todo)["initContainers"][0]["env"]}


def test_a_first_pass_writes_everything_and_the_next_nothing() -> None:
    first = plan(make_observed(), now=NOW)

    assert first.apply
    assert first.write_record
    assert first.secret is not None
    assert first.manifest is not None
    assert len(first.manifest.writes) == manifest.SHARDS

    second = plan(adopt(make_observed()), now=NOW)

    assert (second.apply, second.write_record, second.secret, second.refusal) == (False, False, None, None)
    assert second.manifest is not None
    assert second.manifest.writes == ()
    assert second.adopted


def test_the_patch_adds_only_what_is_ours() -> None:
    todo = plan(make_observed(), now=NOW)

    assert todo.record is not None
    assert set(todo.record.patch["spec"]) == {"template"}
    [engine] = template(todo)["containers"]
    assert engine == {
        "name": "vllm",
        "env": [{"name": "VLLM_ALLOW_RUNTIME_LORA_UPDATING", "value": "True"}],
        "volumeMounts": [{"mountPath": "/adapters", "name": "lora-adapters", "readOnly": True}],
    }
    assert all(volume["name"].startswith("lora-") for volume in template(todo)["volumes"])


def test_the_agent_is_a_native_sidecar_under_the_restricted_standard() -> None:
    [agent] = template(plan(make_observed(), now=NOW))["initContainers"]

    assert (agent["name"], agent["image"], agent["restartPolicy"]) == (AGENT, DEFAULTS.image, "Always")
    assert "startupProbe" not in agent
    assert agent["readinessProbe"]["httpGet"] == {"path": "/readyz", "port": door.PORT, "scheme": "HTTPS"}
    security = agent["securityContext"]
    assert security["runAsNonRoot"]
    assert security["readOnlyRootFilesystem"]
    assert not security["allowPrivilegeEscalation"]
    assert security["capabilities"] == {"drop": ["ALL"]}
    assert security["seccompProfile"] == {"type": "RuntimeDefault"}


def test_the_agent_learns_what_it_serves_beside() -> None:
    container = make_container(args=["--model", BASE, "--enable-lora", "--port", "9000", "--max-lora-rank", "64"])

    env = agent_env(plan(make_observed(deployment=make_deployment("vllm-llama", container)), now=NOW))

    assert env["LORA_AGENT_BASE_MODEL"] == BASE
    assert env["LORA_AGENT_ENGINE_URL"] == "http://127.0.0.1:9000"
    assert env["LORA_AGENT_MAX_LORA_RANK"] == "64"
    assert env["LORA_AGENT_ADAPTERS_SIZE"] == str(20 * 2**30)


def test_the_adapters_volume_has_a_tenth_more_room_than_the_agent_may_fill() -> None:
    todo = plan(make_observed(make_engine(agent={"adaptersSize": "10Gi"})), now=NOW)

    assert template(todo)["volumes"][0]["emptyDir"] == {"sizeLimit": str(11 * 2**30)}


def test_the_engines_api_key_reaches_the_agent_and_no_config_map() -> None:
    container = make_container(args=["--model", BASE, "--enable-lora", "--api-key", "s3cret"])

    todo = plan(make_observed(deployment=make_deployment("vllm-llama", container)), now=NOW)

    assert todo.secret is not None
    assert todo.secret["engine-api-key"] == "s3cret"
    assert agent_env(todo)["LORA_AGENT_ENGINE_API_KEY_FILE"] == "/etc/lora-agent/door/engine-api-key"
    assert todo.record is not None
    assert "s3cret" not in todo.record.model_dump_json()


def test_an_api_key_in_a_secret_is_mounted_from_there() -> None:
    source = {"secretKeyRef": {"name": "keys", "key": "vllm"}}
    container = make_container(env=[{"name": "VLLM_API_KEY", "valueFrom": source}])

    todo = plan(make_observed(deployment=make_deployment("vllm-llama", container)), now=NOW)

    assert agent_env(todo)["LORA_AGENT_ENGINE_API_KEY_FILE"] == "/etc/lora-agent/engine/engine-api-key"
    assert {"secretName": "keys", "items": [{"key": "vllm", "path": "engine-api-key"}]} in [
        volume.get("secret") for volume in template(todo)["volumes"]
    ]


def test_a_newer_operator_changes_nothing_in_an_adopted_deployment() -> None:
    newer = dataclasses.replace(
        DEFAULTS,
        image="example.org/agent:2",
        resources={"limits": {"memory": "1Gi"}},
        env=({"name": "A", "value": "1"},),
    )

    todo = plan(replaced(adopt(make_observed())), now=NOW)
    after = plan(dataclasses.replace(replaced(adopt(make_observed())), defaults=newer), now=NOW)

    assert not after.apply
    assert not after.write_record
    assert after.record == todo.record


def test_the_agent_learns_the_flags_that_adapters_are_judged_by() -> None:
    flags = ["--dtype", "half", "--lora-target-modules", "q_proj", "v_proj"]
    container = make_container(args=["--model", BASE, "--enable-lora", *flags])

    env = agent_env(plan(make_observed(deployment=make_deployment("vllm-llama", container)), now=NOW))

    assert env["LORA_AGENT_ENGINE_DTYPE"] == "half"
    assert env["LORA_AGENT_LORA_DTYPE"] == "auto"
    assert env["LORA_AGENT_LORA_TARGET_MODULES"] == "q_proj,v_proj"


def test_an_operator_that_reads_more_flags_than_the_last_restarts_nothing() -> None:
    args = ["--model", BASE, "--enable-lora", "--dtype", "half"]
    observed = adopt(make_observed(deployment=make_deployment("vllm-llama", make_container(args=args))))
    record = observed.record
    assert record is not None
    inputs = copy.deepcopy(record.inputs)
    inputs["workload"]["flags"] = {"maxLoraRank": 16}
    older = record.model_copy(update={"inputs": inputs})
    kept = adoption.config_map(observed.engine, older)
    observed = dataclasses.replace(observed, config_maps=observed.config_maps | {kept["metadata"]["name"]: kept})

    todo = plan(observed, now=NOW)

    assert (todo.apply, todo.record) == (False, older)
    raised = make_deployment("vllm-llama", make_container(args=[*args, "--max-lora-rank", "32"]))
    assert agent_env(plan(replaced(observed, raised), now=NOW))["LORA_AGENT_ENGINE_DTYPE"] == "half"


@pytest.mark.parametrize(
    ("before", "after", "image"),
    [
        pytest.param({}, {"image": "other:9"}, "other:9", id="spec.agent.image is set"),
        pytest.param({"image": "a:1"}, {"image": "b:2"}, "b:2", id="it changes"),
        pytest.param({"image": "a:1"}, {}, "example.org/agent:2", id="it is taken away"),
        pytest.param({}, {"readyTimeoutSeconds": 9}, "example.org/agent:1", id="something else changes: it stays"),
        pytest.param({"image": "a:1"}, {"image": "a:1", "adaptersSize": "1Gi"}, "a:1", id="it stays as it is set"),
    ],
)
def test_the_agents_image_changes_only_when_the_spec_says_so(before: Object, after: Object, image: str) -> None:
    observed = adopt(make_observed(make_engine(agent=before)))
    newer = dataclasses.replace(DEFAULTS, image="example.org/agent:2")

    todo = plan(dataclasses.replace(replaced(observed, agent=after), defaults=newer), now=NOW)

    assert todo.apply
    assert todo.record is not None
    assert todo.record.image == image
    assert template(todo)["initContainers"][0]["image"] == image


def test_a_lost_record_is_made_again_with_the_image_that_runs() -> None:
    observed = adopt(make_observed())
    kept = {name: obj for name, obj in observed.config_maps.items() if name != "llama-lora-adoption"}
    newer = dataclasses.replace(DEFAULTS, image="example.org/agent:2")

    todo = plan(dataclasses.replace(observed, config_maps=kept, defaults=newer), now=NOW)

    assert todo.write_record
    assert todo.record is not None
    assert todo.record.image == DEFAULTS.image


def test_a_renamed_container_is_found_and_patched_again() -> None:
    renamed = make_deployment("vllm-llama", make_container("llm"))

    todo = plan(replaced(adopt(make_observed()), renamed), now=NOW)

    assert todo.apply
    assert todo.write_record
    assert template(todo)["containers"][0]["name"] == "llm"


def test_what_was_removed_is_put_back_as_it_was() -> None:
    observed = adopt(make_observed())
    newer = dataclasses.replace(DEFAULTS, image="example.org/agent:2")

    todo = plan(dataclasses.replace(replaced(observed, make_deployment()), defaults=newer), now=NOW)

    assert todo.apply
    assert not todo.adopted
    assert todo.record == observed.record
    assert todo.stamp is not None
    assert todo.stamp.reverted == NOW


def test_who_removes_it_twice_within_an_hour_keeps_the_deployment() -> None:
    observed = adopt(make_observed())
    again = replaced(observed, make_deployment())
    again = carried_out(again, plan(again, now=NOW))
    lost = make_deployment()
    lost["metadata"]["managedFields"] = [{"manager": "flux", "operation": "Update", "time": "2026-11-22T12:00:00Z"}]

    soon = plan(replaced(again, lost), now=NOW + timedelta(minutes=59))
    later = plan(replaced(again, lost), now=NOW + timedelta(minutes=61))

    assert not soon.apply
    assert soon.refusal is not None
    assert soon.refusal.reason == "Contended"
    assert "flux" in soon.refusal.message
    assert later.apply


def test_a_patch_that_never_got_in_is_no_removal() -> None:
    observed = adopt(make_observed())

    todo = plan(dataclasses.replace(observed, deployment=make_deployment()), now=NOW)

    assert todo.apply
    assert todo.stamp is None


def test_a_deployment_made_anew_is_adopted_and_not_contended() -> None:
    anew = make_deployment()
    anew["metadata"]["uid"] = "another"

    todo = plan(replaced(adopt(make_observed()), anew), now=NOW)

    assert todo.apply
    assert todo.write_record
    assert todo.stamp is None


def test_a_refused_deployment_is_not_touched() -> None:
    todo = plan(make_observed(deployment=make_deployment("x", make_container(args=["--model", BASE]))), now=NOW)

    assert todo.refusal is not None
    assert (todo.manifest, todo.secret, todo.apply, todo.write_record) == (None, None, False, False)
    assert todo.after == 30


def test_an_engine_that_stops_serving_adapters_keeps_its_manifest() -> None:
    entry = make_entry()
    observed = adopt(make_observed(holders={entry.owner.uid: (entry,)}))
    without = make_deployment("vllm-llama", make_container(args=["--model", BASE]))

    todo = plan(replaced(observed, without), now=NOW)

    assert todo.refusal is not None
    assert todo.refusal.reason == "LoRANotEnabled"
    assert todo.manifest is not None
    assert todo.manifest.entries == (entry,)
    assert todo.manifest.writes == ()


@pytest.mark.parametrize(
    ("patch", "live", "stands"),
    [
        pytest.param({"a": 1}, {"a": 1, "b": 2}, True, id="more is there"),
        pytest.param({"a": {"b": 1}}, {"a": None}, False, id="a map is missing"),
        pytest.param([{"name": "x", "v": 1}], [{"name": "y"}, {"name": "x", "v": 1}], True, id="items by name"),
        pytest.param([{"name": "x"}], [], False, id="an item is missing"),
        pytest.param(
            [{"name": "v", "mountPath": "/a"}], [{"name": "v", "mountPath": "/b"}], False, id="mounts by path"
        ),
        pytest.param([{"configMap": {}}], [{"configMap": {}}, {"configMap": {}}], False, id="a list as a whole"),
        pytest.param({"memory": "1024Mi"}, {"memory": "1Gi"}, True, id="the same amount"),
        pytest.param({"memory": "1Gi"}, {"memory": "2Gi"}, False, id="another amount"),
    ],
)
def test_a_patch_stands_where_each_of_its_fields_does(patch: Any, live: Any, stands: bool) -> None:
    assert adoption.in_place(patch, live) is stands


def test_a_record_of_a_later_version_or_none_is_none() -> None:
    assert adoption.Record.read(None) is None
    assert adoption.Record.read({"data": {adoption.RECORD_KEY: json.dumps({"later": 1})}}) is None


def test_what_others_put_beside_ours_is_no_reason_to_write() -> None:
    observed = adopt(make_observed())
    assert observed.secret is not None
    observed.secret["data"]["theirs"] = "eA=="
    observed.config_maps["llama-lora-adoption"]["data"]["theirs"] = "x"

    todo = plan(observed, now=NOW)

    assert (todo.secret, todo.write_record) == (None, False)
