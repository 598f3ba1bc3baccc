"""What a LoRAEngine's status says."""

from __future__ import annotations

import dataclasses
from datetime import UTC, datetime
from typing import Any

import pytest

from lora_operator.api.lora_engine import EngineDevice, EngineFacts, EngineStatus
from lora_operator.api.meta import ConditionStatus
from lora_operator.engines.refusal import Refusal
from lora_operator.lora_engine.observed import Observed
from lora_operator.lora_engine.plan import plan
from lora_operator.lora_engine.status import next_status
from lora_operator.protocol.door import EngineReport, EntryReport, Report, State
from support.engine_passes import DEFAULTS, carried_out, make_observed
from support.objects import BASE, make_container, make_deployment, make_entry, make_pod

Object = dict[str, Any]
NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)


def status(observed: Observed, rejected: Refusal | None = None) -> EngineStatus:
    return next_status(observed, plan(observed, now=NOW), rejected, now=NOW)


def told(given: EngineStatus) -> dict[str, tuple[bool, str]]:
    return {item.type: (item.status is ConditionStatus.TRUE, item.reason) for item in given.conditions}


def adopted(*pods: Object, replicas: int = 1, **given: Any) -> Observed:
    observed = make_observed(deployment=make_deployment(replicas=replicas), pods=pods, **given)
    return carried_out(observed, plan(observed, now=NOW))


def report(*entries: EntryReport, loads: int = 0, version: str = "") -> Report:
    engine = EngineReport(healthy=True, loads_since_start=loads, version=version)
    return Report(instance="i", sequence=1, agent_version="1", engine=engine, entries=entries)


def test_a_refusal_stalls_and_carries_its_fix() -> None:
    deployment = make_deployment("vllm-llama", make_container(args=["--model", BASE]))

    found = status(make_observed(deployment=deployment))

    reason = "LoRANotEnabled"
    assert told(found) == {"Ready": (False, reason), "Adopted": (False, reason), "Stalled": (True, reason)}
    assert all("--enable-lora" in condition.message for condition in found.conditions)
    assert {condition.observed_generation for condition in found.conditions} == {1}


def test_a_patch_that_the_apiserver_refused_is_no_adoption() -> None:
    found = status(make_observed(), Refusal("FieldConflict", "flux holds it"))

    assert told(found)["Adopted"] == (False, "FieldConflict")
    assert told(found)["Stalled"] == (True, "FieldConflict")


def test_the_first_pass_says_adopted_and_rolling_out() -> None:
    assert told(status(make_observed())) == {
        "Ready": (False, "RollingOut"),
        "Adopted": (True, "Adopted"),
        "Reconciling": (True, "RollingOut"),
    }


def test_one_ready_pod_with_the_agent_is_ready() -> None:
    found = status(adopted(make_pod("a"), make_pod("b", ready=False)))

    assert told(found) == {"Ready": (True, "Serving"), "Adopted": (True, "Adopted")}
    assert found.pods is not None
    assert (found.pods.ready, found.pods.total) == (1, 2)
    assert found.base_model == BASE
    assert found.flags is not None
    assert found.flags.max_lora_rank == 16
    assert found.agent_image == DEFAULTS.image


def test_a_deployment_scaled_to_zero_has_no_pods_and_is_not_stalled() -> None:
    assert told(status(adopted(replicas=0))) == {"Ready": (False, "NoPods"), "Adopted": (True, "Adopted")}


def test_a_rollout_that_does_not_get_on_stalls() -> None:
    observed = adopted(make_pod(ready=False))
    assert observed.deployment is not None
    observed.deployment["status"] |= {
        "updatedReplicas": 0,
        "conditions": [{"type": "Progressing", "status": "False", "reason": "X", "message": "timed out"}],
    }

    found = status(observed)

    assert told(found)["Stalled"] == (True, "RolloutStuck")
    assert "timed out" in found.conditions[0].message


def test_an_older_agent_is_told_with_the_field_that_changes_it() -> None:
    newer = dataclasses.replace(DEFAULTS, image="example.org/agent:2")

    found = status(dataclasses.replace(adopted(make_pod()), defaults=newer))

    [warning] = [condition for condition in found.conditions if condition.type == "AgentOutdated"]
    assert "spec.agent.image to example.org/agent:2" in warning.message
    assert told(found)["Ready"] == (True, "Serving")


@pytest.mark.parametrize(("loads", "warned"), [pytest.param(1, False, id="full"), pytest.param(2, True, id="over")])
def test_more_adapters_than_slots_are_a_warning(loads: int, warned: bool) -> None:
    found = status(adopted(make_pod("a"), reports={"a": report(loads=loads)}))

    assert ("SlotsExceeded" in told(found)) is warned
    assert found.slots is not None
    assert (found.slots.used, found.slots.total) == (loads, 1)


def test_slots_stay_as_they_were_while_a_ready_pod_is_unheard() -> None:
    heard = adopted(make_pod("a"), reports={"a": report(loads=2)})
    unheard = adopted(make_pod("a"), reports={})
    told_before = heard.engine.model_copy(update={"status": status(heard)})

    found = status(dataclasses.replace(unheard, engine=told_before))

    assert found.slots is not None
    assert found.slots.used == 2
    assert "SlotsExceeded" in told(found)


def test_an_adapter_counts_as_loaded_where_every_ready_pod_answers_it() -> None:
    one, two = make_entry("one"), make_entry("two")
    both = report(*(EntryReport(engine_name=entry.engine_name, state=State.LOADED) for entry in (one, two)))
    half = report(
        EntryReport(engine_name=one.engine_name, state=State.LOADED),
        EntryReport(engine_name=two.engine_name, state=State.FETCHING),
    )
    pods = (make_pod("a"), make_pod("b"), make_pod("c", ready=False))

    found = status(adopted(*pods, holders={"uid-one": (one,), "uid-two": (two,)}, reports={"a": both, "b": half}))

    assert found.adapters is not None
    assert (found.adapters.loaded, found.adapters.desired) == (1, 2)


def test_the_version_is_the_engine_s_own_word_and_outlives_a_silence() -> None:
    pods = make_pod("a"), make_pod("b")
    told_by = {"a": report(version="0.32.0"), "b": report(version="0.32.0")}

    first = status(adopted(*pods, reports=told_by))

    assert first.engine == EngineFacts(version="0.32.0", device=EngineDevice.CUDA)

    silent = adopted(*pods)
    of_before = silent.engine.model_copy(update={"status": first})
    assert status(dataclasses.replace(silent, engine=of_before)).engine == first.engine
    rolling = {"a": report(version="0.32.0"), "b": report(version="0.33.0")}
    assert status(dataclasses.replace(silent, engine=of_before, reports=rolling)).engine == first.engine
