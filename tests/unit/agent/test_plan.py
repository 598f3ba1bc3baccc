"""What the agent does next, as a table; and that it comes to rest."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lora_agent.backoff import Ends, Setback, Step
from lora_agent.engine import Health, View
from lora_agent.life import Life
from lora_agent.plan import Fetch, Forget, Load, Observed, Probe, Remove, Unload, is_settled, plan, report
from lora_operator.protocol.door import State
from lora_operator.protocol.manifest import Entry, HubSource, Owner

UP = View(health=Health.UP, served=("base",))


def entry(name: str, *, content: str | None = None, credential: str | None = None) -> Entry:
    return Entry(
        engine_name=name,
        digest=f"sha256:{content or name}",
        hub=HubSource(repo="acme/a", commit="c", credential=credential),
        files=(),
        owner=Owner(namespace="team-a", name="a", uid="u", generation=1),
        resolved="2026-01-01T00:00:00Z",
        rank=8,
        lora_alpha="16",
        target_modules=(),
    )


def observed(*wanted: Entry, leaving: dict[str, str] | None = None, **changes: Any) -> Observed:
    hexes = {one.engine_name: one.digest.removeprefix("sha256:") for one in wanted} | (leaving or {})
    given: dict[str, Any] = {
        "wanted": {one.engine_name: one for one in wanted},
        "hexes": hexes,
        "paths": {content: f"/adapters/{content}" for content in hexes.values()},
        "published": frozenset(),
        "fetching": frozenset(),
        "view": UP,
        "life": Life(healthy_since=0.0),
        "probing": frozenset(),
        "setbacks": {},
        "credentials": frozenset(),
        "base_problem": "",
        "now": 100.0,
    }
    return Observed(**{**given, **changes})


def holding(**adapters: str) -> View:
    return replace(UP, adapters={name: f"/adapters/{content}" for name, content in adapters.items()})


def setback(step: Step, *, due: float, ends: Ends = Ends.TRANSIENT) -> Setback:
    return Setback(step=step, reason="Because", message="m", ends=ends, failures=1, retry_seconds=1.0, due=due)


A, B = entry("a"), entry("b")
LOADED = Life(healthy_since=0.0, answered=frozenset({"a"}))


@pytest.mark.parametrize(
    ("given", "actions"),
    [
        pytest.param(observed(A), (Fetch(name="a"),), id="absent: fetch"),
        pytest.param(observed(A, fetching=frozenset({"a"})), (), id="being fetched: wait"),
        pytest.param(observed(A, base_problem="why"), (), id="base unknown: nothing can be verified"),
        pytest.param(observed(entry("a", credential="k")), (), id="no token yet: wait"),
        pytest.param(
            observed(entry("a", credential="k"), credentials=frozenset({"k"})),
            (Fetch(name="a"),),
            id="token there: fetch",
        ),
        pytest.param(observed(A, published=frozenset({"a"})), (Load(name="a"),), id="on disk: load"),
        pytest.param(
            observed(A, published=frozenset({"a"}), view=View(health=Health.DOWN)), (), id="on disk, engine down: wait"
        ),
        pytest.param(
            observed(A, view=View(health=Health.DOWN)), (Fetch(name="a"),), id="engine down: fetch all the same"
        ),
        pytest.param(
            observed(A, published=frozenset({"a"}), view=holding(a="a")), (Probe(name="a"),), id="listed: probe"
        ),
        pytest.param(
            observed(A, published=frozenset({"a"}), view=holding(a="a"), probing=frozenset({"a"})), (), id="probe out"
        ),
        pytest.param(
            observed(A, published=frozenset({"a"}), view=holding(a="a"), life=LOADED), (), id="answered: rest"
        ),
        pytest.param(observed(A, published=frozenset({"a"}), view=holding(a="other")), (), id="name taken: leave it"),
        pytest.param(observed(A, setbacks={"a": setback(Step.FETCH, due=101)}), (), id="set back, not due"),
        pytest.param(observed(A, setbacks={"a": setback(Step.FETCH, due=99)}), (Fetch(name="a"),), id="set back, due"),
        pytest.param(
            observed(leaving={"a": "a"}, published=frozenset({"a"}), view=holding(a="a")),
            (Unload(name="a"),),
            id="leave: unload",
        ),
        pytest.param(
            observed(leaving={"a": "a"}, published=frozenset({"a"})),
            (Remove(name="a", digest_hex="a"),),
            id="then files",
        ),
        pytest.param(observed(leaving={"a": "a"}), (Forget(name="a"),), id="then nothing is left"),
        pytest.param(
            observed(leaving={"a": "a"}, published=frozenset({"a"}), view=View(health=Health.SILENT)),
            (),
            id="engine silent: files stay",
        ),
        pytest.param(
            observed(entry("b", content="a"), leaving={"a": "a"}, published=frozenset({"a"})),
            (Forget(name="a"), Load(name="b")),
            id="files that another entry uses stay",
        ),
        pytest.param(
            observed(leaving={"a": "x", "b": "x"}, published=frozenset({"x"}), view=holding(b="x")),
            (Unload(name="b"),),
            id="files that another name still holds stay",
        ),
        pytest.param(
            observed(leaving={"a": "a"}, view=holding(a="other")), (Forget(name="a"),), id="not ours: not unloaded"
        ),
        pytest.param(
            observed(entry("a", content="x"), entry("b", content="x")), (Fetch(name="a"),), id="one fetch a content"
        ),
        pytest.param(observed(A, B, entry("c")), (Fetch(name="a"), Fetch(name="b")), id="two fetches at once"),
    ],
)
def test_the_plan(given: Observed, actions: tuple[object, ...]) -> None:
    assert plan(given) == actions


@pytest.mark.parametrize(
    ("given", "state", "reason"),
    [
        pytest.param(observed(A), State.PENDING, "", id="absent"),
        pytest.param(observed(A, fetching=frozenset({"a"})), State.FETCHING, "", id="being fetched"),
        pytest.param(observed(A, base_problem="why"), State.PENDING, "BaseNotReadable", id="base unknown"),
        pytest.param(
            observed(entry("a", credential="k")), State.WAITING_FOR_CREDENTIALS, "WaitingForCredentials", id="no token"
        ),
        pytest.param(observed(A, published=frozenset({"a"})), State.LOADING, "", id="on disk"),
        pytest.param(
            observed(A, published=frozenset({"a"}), view=View(health=Health.DOWN)),
            State.PENDING,
            "EngineNotReady",
            id="down",
        ),
        pytest.param(observed(A, view=holding(a="a")), State.PROBE_PENDING, "", id="listed"),
        pytest.param(observed(A, view=holding(a="a"), life=LOADED), State.LOADED, "", id="answered"),
        pytest.param(observed(A, view=holding(a="x")), State.FAILED, "EngineNameTaken", id="taken"),
        pytest.param(observed(leaving={"a": "a"}), State.UNLOADING, "", id="leaving"),
        pytest.param(
            observed(A, setbacks={"a": setback(Step.FETCH, due=0)}), State.FETCHING, "Because", id="waiting for the Hub"
        ),
        pytest.param(
            observed(A, fetching=frozenset({"a"}), setbacks={"a": setback(Step.FETCH, due=0, ends=Ends.CONTENT)}),
            State.FAILED,
            "Because",
            id="a retry of what failed does not flap",
        ),
    ],
)
def test_the_report(given: Observed, state: State, reason: str) -> None:
    told = report(given, "a")
    assert (told.state, told.reason) == (state, reason)
    assert is_settled(told) == (state in {State.LOADED, State.FAILED})


NAMES = "abcd"
CONTENTS = "wxyz"


@given(
    wanted=st.dictionaries(st.sampled_from(NAMES), st.sampled_from(CONTENTS)),
    leaving=st.dictionaries(st.sampled_from(NAMES), st.sampled_from(CONTENTS)),
    published=st.frozensets(st.sampled_from(CONTENTS)),
    loaded=st.frozensets(st.sampled_from(NAMES)),
    foreign=st.booleans(),
)
def test_doing_what_is_planned_comes_to_rest_with_exactly_what_is_wanted(
    wanted: dict[str, str], leaving: dict[str, str], published: frozenset[str], loaded: frozenset[str], foreign: bool
) -> None:
    now = observed(
        *(entry(name, content=content) for name, content in wanted.items()),
        leaving={name: content for name, content in leaving.items() if name not in wanted},
    )
    listed = {name: now.paths[now.hexes[name]] for name in loaded if now.hexes.get(name) in published}
    stranger = {"by-hand": "/elsewhere"} if foreign else {}
    kept = published & set(now.hexes.values())
    now = replace(now, published=kept, view=replace(UP, adapters={**listed, **stranger}))
    for _ in range(40):
        actions = plan(now)
        if not actions:
            break
        now = _done(now, actions[0])
    assert not plan(now)
    assert set(now.view.adapters) == set(wanted) | set(stranger)
    assert now.published == set(wanted.values())
    assert now.life.answered >= set(wanted)
    assert not now.leaving


def _done(now: Observed, action: object) -> Observed:
    """Return what is observed after an action went well. An engine never lists what is not on disk."""
    adapters = dict(now.view.adapters)
    match action:
        case Fetch(name=name):
            return replace(now, published=now.published | {now.hexes[name]})
        case Load(name=name):
            adapters[name] = now.paths[now.hexes[name]]
        case Unload(name=name):
            del adapters[name]
        case Probe(name=name):
            return replace(now, life=replace(now.life, answered=now.life.answered | {name}))
        case Remove(name=name, digest_hex=digest_hex):
            assert now.paths[digest_hex] not in adapters.values()
            hexes = {other: content for other, content in now.hexes.items() if other != name}
            return replace(now, published=now.published - {digest_hex}, hexes=hexes)
        case Forget(name=name):
            return replace(now, hexes={other: content for other, content in now.hexes.items() if other != name})
    return replace(now, view=replace(now.view, adapters=adapters))
