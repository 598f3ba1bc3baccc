"""What a LoRAAdapter's status says: Ready as the design defines it, and which version serves."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from lora_operator.adapter import EngineLimits, inspect
from lora_operator.api.lora_adapter import AdapterStatus
from lora_operator.conditions import find, true
from lora_operator.errors import Blocked, PassError, Waiting
from lora_operator.lora_adapter import plan
from lora_operator.lora_adapter.observed import Observed
from lora_operator.lora_adapter.refusal import NotServableError
from lora_operator.lora_adapter.status import GAP, Outcome, status
from lora_operator.protocol.door import State
from lora_operator.protocol.manifest import Entry
from support.adapter_passes import observed, outline, told, unheard, view, with_facts
from support.adapters import make_adapter as make_files
from support.objects import make_adapter, make_entry

Object = dict[str, Any]
ENTRY, NEXT = make_entry(version="a"), make_entry(version="b", resolved="2026-11-22T12:30:00Z")


def found(given: Observed, target: Entry | None = ENTRY, **outcome: Any) -> AdapterStatus:
    return status(given, Outcome(rollout=plan.rollout(given, target), **outcome))


def was_ready(entry: Entry = ENTRY) -> Object:
    return with_facts(make_adapter(), true("Ready", "Loaded"), current={"engineName": entry.engine_name})


def message(given: AdapterStatus, kind: str = "Ready") -> str:
    condition = find(given.conditions, kind)
    assert condition is not None
    return condition.message


def test_ready_is_that_the_version_answers_on_every_ready_pod() -> None:
    given = found(observed(pods=(view("a", ENTRY), view("b", ENTRY))))

    assert outline(given) == {
        "Ready": ("True", "Loaded"),
        "Loaded": ("True", "Loaded"),
        "Compatible": ("True", "Servable"),
        "Resolved": ("True", "Pinned"),
    }
    assert given.replicas is not None
    assert (given.replicas.desired, given.replicas.loaded) == (2, 2)
    assert given.current is not None
    assert given.current.engine_name == ENTRY.engine_name
    assert (given.next, given.pods) == (None, ())


def test_without_pods_it_is_neither_ready_nor_stalled() -> None:
    given = outline(found(observed()))

    assert given["Ready"] == given["Loaded"] == ("False", "NoPods")
    assert "Stalled" not in given
    assert "Reconciling" not in given


def test_while_the_first_pod_starts_it_is_on_its_way() -> None:
    given = found(observed(starting=True))

    assert outline(given)["Ready"] == ("False", "NoPods")
    assert outline(given)["Reconciling"] == ("True", "NoPods")
    assert "wait for the one that is starting" in message(given)


def test_on_its_way_is_reconciling_with_the_agent_s_words_and_an_example() -> None:
    pods = (view("a", ENTRY), view("b", x=told(ENTRY, State.FETCHING, "HubUnavailable", "the Hub answers 503", 8)))

    given = found(observed(pods=pods))

    assert outline(given)["Ready"] == ("False", "HubUnavailable")
    assert outline(given)["Reconciling"] == ("True", "HubUnavailable")
    assert message(given) == "1 of 2 Ready pods answer; b: the Hub answers 503"
    assert [(pod.name, pod.reason) for pod in given.pods] == [("b", "HubUnavailable")]
    assert (given.current, given.next and given.next.engine_name) == (None, ENTRY.engine_name)


@pytest.mark.parametrize("state", [State.PENDING, State.FETCHING, State.LOADING, State.PROBE_PENDING])
def test_what_passes_by_itself_has_one_reason_so_that_no_step_of_it_is_written(state: State) -> None:
    under_way = outline(found(observed(pods=(view("a", x=told(ENTRY, state)),))))
    not_told = outline(found(observed(pods=(view("a"),))))

    assert under_way["Ready"] == not_told["Ready"] == ("False", "Loading")


def test_what_only_a_change_makes_better_is_stalled_though_agents_look_again() -> None:
    refused = told(ENTRY, State.FAILED, "NotFinite", "NaN in lora_B", 300)

    everywhere = outline(found(observed(pods=(view("a", x=refused),))))
    somewhere = outline(found(observed(pods=(view("a", x=refused), view("b")))))

    assert everywhere["Stalled"] == ("True", "NotFinite")
    assert somewhere["Ready"] == ("False", "NotFinite")
    assert "Stalled" not in somewhere


def test_an_agent_that_does_not_answer_is_named() -> None:
    given = found(observed(pods=(view("a", ENTRY, silent=True), unheard("b"))))

    assert outline(given)["Ready"] == ("False", "AgentUnreachable")
    assert "lora-agent" in message(given)


def test_a_gap_on_a_pod_is_reconciling_for_a_while_and_then_not_ready() -> None:
    given = observed(was_ready(), pods=(view("a", ENTRY), view("new")))

    fresh = outline(found(given, gap=timedelta(seconds=5)))
    old = outline(found(given, gap=GAP))

    assert fresh["Ready"] == ("True", "Loaded")
    assert fresh["Reconciling"] == ("True", "PartlyLoaded")
    assert old["Ready"] == ("False", "PartlyLoaded")


def test_what_a_pass_tells_of_a_gap_the_next_one_tells_too() -> None:
    pods = (view("a", ENTRY), view("new", silent=True))
    first = found(observed(was_ready(), pods=pods), gap=GAP)
    told_before = was_ready() | {"status": first.model_dump(mode="json", by_alias=True, exclude_none=True)}

    assert outline(found(observed(told_before, pods=pods), gap=GAP)) == outline(first)


def test_the_new_version_is_next_while_the_one_before_it_serves() -> None:
    given = found(observed(was_ready(), held=(ENTRY, NEXT), pods=(view("a", ENTRY),)), NEXT)

    assert given.current is not None
    assert given.next is not None
    assert (given.current.engine_name, given.next.engine_name) == (ENTRY.engine_name, NEXT.engine_name)


@pytest.mark.parametrize(
    ("problem", "early", "conditions"),
    [
        pytest.param(
            Blocked("EngineNotFound", "correct spec.engineRef"),
            True,
            {"Ready": "False", "Stalled": "True"},
            id="engine",
        ),
        pytest.param(
            Blocked("RepositoryNotFound", "correct repo"),
            False,
            {"Ready": "False", "Resolved": "False", "Stalled": "True"},
            id="source",
        ),
        pytest.param(
            Waiting("HubUnavailable", "trying again"),
            False,
            {"Ready": "False", "Resolved": "False", "Reconciling": "True"},
            id="waiting",
        ),
    ],
)
def test_a_problem_is_told_at_the_stage_where_it_stands(
    problem: PassError, early: bool, conditions: dict[str, str]
) -> None:
    given = found(observed(), None, problem=problem, early=early)

    assert outline(given) == {kind: (value, problem.reason) for kind, value in conditions.items()}
    assert message(given) == problem.message


def test_what_the_library_refuses_is_resolved_but_not_compatible() -> None:
    verdict = inspect(make_files(config={"use_dora": True}).parts(), None, EngineLimits())

    given = found(observed(), None, problem=NotServableError(verdict))

    assert outline(given)["Resolved"] == ("True", "Pinned")
    assert outline(given)["Compatible"] == ("False", "DoRANotSupported")
    assert outline(given)["Stalled"] == ("True", "DoRANotSupported")


def test_a_base_that_can_not_be_read_is_unknown_rather_than_refused() -> None:
    verdict = inspect(make_files().parts(), None, EngineLimits())

    given = outline(found(observed(), None, problem=NotServableError(verdict)))

    assert given["Compatible"] == ("Unknown", "BaseNotReadable")


def test_a_refused_successor_names_the_version_that_goes_on_serving() -> None:
    given = found(observed(was_ready(), held=(ENTRY,)), None, problem=Blocked("RevisionNotFound", "no such revision."))

    assert ENTRY.engine_name in message(given)
    assert given.current is not None


def test_examples_are_ten_at_most() -> None:
    given = found(observed(pods=tuple(view(f"pod-{index:02}") for index in range(40))))

    assert len(given.pods) == 10
    assert given.replicas is not None
    assert given.replicas.desired == 40
