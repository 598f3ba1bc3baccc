"""What the passes rely on when they read an object."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from pydantic import ValidationError

from lora_operator.api import LoRAAdapter, LoRAEngine, LoRATrainingJob
from lora_operator.api.lora_engine import LabelSelector
from lora_operator.api.meta import Condition, ConditionStatus
from lora_operator.labels import REQUESTED_AT, Key
from support.samples import adapter, engine, training_job, varied


def test_fields_of_a_newer_crd_are_passed_over() -> None:
    newer = varied(adapter(), {"spec.placement": {"podCount": 2}, "status": {"routes": []}})
    assert LoRAAdapter.model_validate(newer).spec == LoRAAdapter.model_validate(adapter()).spec


def test_a_value_of_a_newer_crd_is_an_error() -> None:
    with pytest.raises(ValidationError, match=r"spec\.mode"):
        LoRAAdapter.model_validate(varied(adapter(), {"spec.mode": "Merged"}))


def test_what_was_read_can_not_be_changed() -> None:
    read = LoRAEngine.model_validate(engine())
    with pytest.raises(ValidationError, match="frozen"):
        read.spec.target_ref.name = "other"  # type: ignore[misc]


@pytest.mark.parametrize(
    ("fields", "key"),
    [
        pytest.param({}, Key("LoRAEngine", "team-a", "vllm-llama"), id="its own namespace by default"),
        pytest.param({"spec.engineRef.namespace": "models"}, Key("LoRAEngine", "models", "vllm-llama"), id="another"),
    ],
)
def test_an_adapter_knows_its_engine(fields: dict[str, str], key: Key) -> None:
    assert LoRAAdapter.model_validate(varied(adapter(namespace="team-a"), fields)).engine_key == key


def test_a_job_may_do_without_an_engine() -> None:
    assert LoRATrainingJob.model_validate(training_job()).engine_key is None


def test_an_object_knows_its_key_and_what_its_metadata_asks() -> None:
    metadata = {"metadata.deletionTimestamp": "2026-01-01T00:00:00Z", "metadata.annotations": {REQUESTED_AT: "now"}}
    read = LoRAAdapter.model_validate(varied(adapter("bot", "team-a"), metadata))
    assert (read.key, read.deleting, read.requested_at) == (Key("LoRAAdapter", "team-a", "bot"), True, "now")


def test_the_served_name_is_the_object_s_by_default() -> None:
    assert LoRAAdapter.model_validate(adapter("bot")).served_name == "bot"
    assert LoRAAdapter.model_validate(varied(adapter("bot"), {"spec.servedName": "help"})).served_name == "help"


def test_a_moment_is_the_same_after_it_was_written_and_read() -> None:
    moment = datetime(2026, 1, 1, 12, 0, 0, 987654, tzinfo=UTC)
    written = Condition(type="Ready", status=ConditionStatus.TRUE, last_transition_time=moment, reason="Loaded")
    text = written.model_dump_json(by_alias=True)
    assert '"2026-01-01T12:00:00Z"' in text
    assert Condition.model_validate_json(text) == written


@pytest.mark.parametrize(
    ("selector", "labels", "matches"),
    [
        pytest.param({}, {}, True, id="an empty selector takes all"),
        pytest.param({"matchLabels": {"team": "a"}}, {"team": "a", "tier": "x"}, True, id="a label that is there"),
        pytest.param({"matchLabels": {"team": "a"}}, {"team": "b"}, False, id="a label with another value"),
        pytest.param({"key": "team", "operator": "In", "values": ["a", "b"]}, {"team": "b"}, True, id="in"),
        pytest.param({"key": "team", "operator": "In", "values": ["a", "b"]}, {}, False, id="in, label absent"),
        pytest.param({"key": "team", "operator": "NotIn", "values": ["a"]}, {"team": "a"}, False, id="not in"),
        pytest.param({"key": "team", "operator": "NotIn", "values": ["a"]}, {}, True, id="not in, label absent"),
        pytest.param({"key": "team", "operator": "Exists"}, {"team": ""}, True, id="exists"),
        pytest.param({"key": "team", "operator": "Exists"}, {}, False, id="exists, label absent"),
        pytest.param({"key": "team", "operator": "DoesNotExist"}, {"team": ""}, False, id="does not exist"),
        pytest.param({"key": "team", "operator": "DoesNotExist"}, {}, True, id="does not exist, label absent"),
    ],
)
def test_a_selector_picks_as_kubernetes_does(
    selector: dict[str, object], labels: dict[str, str], matches: bool
) -> None:
    given = {"matchExpressions": [selector]} if "key" in selector else selector
    assert LabelSelector.model_validate(given).matches(labels) is matches
