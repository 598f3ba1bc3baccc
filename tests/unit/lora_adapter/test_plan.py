"""What the LoRAAdapter pass decides: what stands in the way, whether a pin holds, which versions are held."""

from __future__ import annotations

import dataclasses
from datetime import timedelta
from typing import Any

import pytest

from lora_operator.errors import Blocked, Waiting
from lora_operator.labels import REQUESTED_AT, Key
from lora_operator.lora_adapter import plan
from lora_operator.protocol.door import State
from lora_operator.protocol.manifest import Entry
from support.adapter_passes import NOW, adopted_engine, observed, refused_engine, told, unheard, view, with_facts
from support.objects import make_adapter, make_engine, make_entry

Object = dict[str, Any]
OLD, NEW = make_entry(version="a"), make_entry(version="b", resolved="2026-11-22T12:30:00Z")


def serving(entry: Entry) -> Object:
    """Return an adapter whose status says that this version serves."""
    return with_facts(make_adapter(), current={"engineName": entry.engine_name})


@pytest.mark.parametrize(
    ("given", "kind", "reason", "words"),
    [
        pytest.param({"allowed": False}, Blocked, "NamespaceNotAllowed", "spec.allowedNamespaces", id="not allowed"),
        pytest.param({"engine": make_engine()}, Waiting, "EngineNotReady", "not adopted yet", id="not looked at yet"),
        pytest.param(
            {"engine": refused_engine("LoRANotEnabled", "add --enable-lora")},
            Waiting,
            "EngineNotReady",
            "LoRANotEnabled: add --enable-lora",
            id="refused: its own reason is passed on",
        ),
        pytest.param(
            {"engine": adopted_engine(base="other/base")}, Blocked, "BaseModelMismatch", "spec.baseModel", id="base"
        ),
    ],
)
def test_what_forbids_serving_is_told_with_the_field_to_change(
    given: dict[str, Any], kind: type[Exception], reason: str, words: str
) -> None:
    found = plan.obstacle(observed(**given))

    assert isinstance(found, kind)
    assert (found.reason, words in found.message) == (reason, True)


def test_nothing_stands_in_the_way_of_an_adapter_on_an_adopted_engine_of_its_base() -> None:
    assert plan.obstacle(observed()) is None


def test_an_engine_that_was_never_there_is_a_wrong_reference_and_one_that_served_is_gone() -> None:
    never = plan.obstacle(dataclasses.replace(observed(), engine=None))
    gone = plan.obstacle(dataclasses.replace(observed(serving(OLD)), engine=None))

    assert never is not None
    assert gone is not None
    assert (never.reason, gone.reason) == ("EngineNotFound", "EngineGone")
    assert "spec.engineRef" in never.message


def test_an_engine_that_leaves_holds_no_new_adapter() -> None:
    leaving = adopted_engine()
    leaving["metadata"]["deletionTimestamp"] = "2026-11-22T12:00:00Z"

    found = plan.obstacle(observed(engine=leaving))

    assert found is not None
    assert found.reason == "EngineGone"


def test_a_pin_holds_until_the_spec_or_the_annotation_asks_anew() -> None:
    asked = make_adapter()
    asked["metadata"]["annotations"] = {REQUESTED_AT: "now"}
    edited = make_adapter()
    edited["metadata"]["generation"] = 2

    assert plan.holding_pin(observed(held=(OLD,))) == OLD
    assert plan.holding_pin(observed(asked, held=(OLD,))) is None
    assert plan.holding_pin(observed(edited, held=(OLD,))) is None
    assert plan.holding_pin(observed()) is None


def test_of_two_pins_the_one_that_was_asked_for_last_is_wanted() -> None:
    assert plan.newest((OLD, NEW)) == plan.newest((NEW, OLD)) == NEW


def test_a_pin_is_resolved_anew_only_where_it_polls_and_the_time_is_over() -> None:
    source = {"hub": {"repo": "acme/support", "poll": {"mode": "Interval", "intervalSeconds": 60}}}
    polling = observed(make_adapter(source=source))

    assert plan.next_poll(observed(), NOW - timedelta(days=1)) is None
    assert plan.next_poll(polling, None) == 0
    assert plan.next_poll(polling, NOW - timedelta(seconds=20)) == 40
    assert plan.next_poll(polling, NOW - timedelta(seconds=90)) == 0


def test_a_restart_keeps_to_the_rhythm_of_the_polls() -> None:
    source = {"hub": {"repo": "acme/support", "poll": {"mode": "Interval", "intervalSeconds": 3600}}}
    made = (NOW - timedelta(seconds=3 * 3600 + 600)).isoformat().replace("+00:00", "Z")
    pinned = observed(make_adapter(source=source), held=(make_entry(resolved=made),))

    assert plan.presumed_poll(pinned) == NOW - timedelta(seconds=600)
    assert plan.next_poll(pinned, plan.presumed_poll(pinned)) == 3000
    assert plan.presumed_poll(observed(make_adapter(source=source))) is None


def test_what_is_not_let_in_any_more_is_given_up_and_what_has_no_engine_is_kept() -> None:
    shut_out = observed(serving(OLD), held=(OLD,), allowed=False, pods=(view("a", OLD),))

    assert plan.rollout(shut_out, None) == plan.Rollout(current=None, target=None, want=())
    assert plan.rollout(dataclasses.replace(shut_out, engine=None), None).want == (OLD,)


def test_a_first_version_is_held_and_serves_once_it_answers_on_every_ready_pod() -> None:
    half = plan.rollout(observed(pods=(view("a", NEW), view("b"))), NEW)
    whole = plan.rollout(observed(pods=(view("a", NEW), view("b", NEW))), NEW)

    assert (half.want, half.current) == ((NEW,), None)
    assert (whole.want, whole.current) == ((NEW,), NEW)


@pytest.mark.parametrize(
    "pods",
    [
        pytest.param((), id="no pods"),
        pytest.param((view("a", OLD, NEW), view("b", OLD)), id="missing on one"),
        pytest.param((view("a", OLD, x=told(NEW, State.FAILED, "NotFinite")),), id="refused by the agent"),
        pytest.param((view("a", OLD, NEW), unheard("b")), id="one not heard"),
        pytest.param((view("a", OLD, NEW, silent=True),), id="silent"),
    ],
)
def test_the_version_before_is_held_and_serves_until_the_new_one_answers_everywhere(pods: Any) -> None:
    found = plan.rollout(observed(serving(OLD), held=(OLD, NEW), pods=pods), NEW)

    assert (found.want, found.current, found.target) == ((OLD, NEW), OLD, NEW)


def test_the_version_before_goes_once_the_new_one_answers_everywhere() -> None:
    found = plan.rollout(observed(serving(OLD), held=(OLD, NEW), pods=(view("a", OLD, NEW),)), NEW)

    assert (found.want, found.current) == ((NEW,), NEW)


def test_a_version_that_never_served_gives_way_to_a_newer_one() -> None:
    third = make_entry(version="c", resolved="2026-11-22T13:00:00Z")

    found = plan.rollout(observed(serving(OLD), held=(OLD, NEW), pods=(view("a", OLD),)), third)

    assert found.want == (OLD, third)


def test_without_a_new_version_everything_stays_as_it_is() -> None:
    found = plan.rollout(observed(serving(OLD), held=(OLD, NEW)), None)

    assert (found.want, found.current, found.target) == ((OLD, NEW), OLD, None)


def test_a_version_that_serves_stays_current_while_a_pod_lacks_it() -> None:
    found = plan.rollout(observed(serving(OLD), held=(OLD,), pods=(view("a"),)), OLD)

    assert found.current == OLD


def test_a_pod_that_may_hold_everything_is_asked_first() -> None:
    assert plan.is_unheard((unheard("a"),))
    assert not plan.is_unheard((unheard("a", silent=True), view("b")))


def test_a_deleted_adapter_is_left_behind_in_the_manifest_and_where_an_agent_has_it_or_says_nothing() -> None:
    key = Key("LoRAAdapter", "models", "support")
    namesake = make_entry("support.v2")
    pods = (view("holds", OLD), view("empty"), view("another", namesake), unheard("mute"))

    assert plan.left_behind(observed(written=(OLD,), pods=pods), key) == ["the manifest", "pod holds", "pod mute"]
    assert plan.left_behind(observed(pods=(view("empty"),)), key) == []
