"""What to do next, from what is wanted, what lies on disk and what the engine has. Pure and total.

Each step of the loop asks anew; nothing here remembers. Files go last: a directory is removed only when the engine
neither lists it nor answers anybody from it, and no other entry uses it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from lora_agent.backoff import Setback, Step
from lora_agent.engine import Health, View
from lora_agent.life import Life
from lora_operator.protocol.door import EntryReport, State
from lora_operator.protocol.manifest import Entry

FETCHES_AT_ONCE = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Observed:
    """Everything that a decision needs, at one moment. Adapters on disk are named by the hex of their digest."""

    wanted: Mapping[str, Entry]
    hexes: Mapping[str, str]
    """Engine name -> digest hex: of every entry wanted, and of those that are leaving."""
    paths: Mapping[str, str]
    """Digest hex -> the path that the engine is given."""
    published: frozenset[str]
    fetching: frozenset[str]
    view: View
    life: Life
    probing: frozenset[str]
    setbacks: Mapping[str, Setback]
    credentials: frozenset[str]
    base_problem: str
    """Why adapters can't be verified yet; empty once the base is known."""
    now: float

    @property
    def leaving(self) -> frozenset[str]:
        """Engine names that were wanted once and are not gone yet."""
        return frozenset(self.hexes.keys() - self.wanted.keys())


@dataclass(frozen=True, slots=True, kw_only=True)
class Fetch:
    """Bring the adapter onto the disk, verified."""

    name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """Have the engine load it."""

    name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Probe:
    """Ask the adapter for one token."""

    name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Unload:
    """Have the engine forget it."""

    name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Remove:
    """Delete the files, once no request runs on them."""

    name: str
    digest_hex: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Forget:
    """Nothing is left of it: it goes from the report."""

    name: str


Action = Fetch | Load | Probe | Unload | Remove | Forget


def plan(observed: Observed) -> tuple[Action, ...]:
    """Return what to do now, in order: what leaves first, for it makes room."""
    leaving = [action for name in sorted(observed.leaving) if (action := _goodbye(observed, name))]
    coming = [action for name in sorted(observed.wanted) if (action := _next(observed, name))]
    fetches = [action for action in coming if isinstance(action, Fetch)]
    allowed = {id(action) for action in _distinct(observed, fetches)}
    return (*leaving, *(action for action in coming if not isinstance(action, Fetch) or id(action) in allowed))


def report(observed: Observed, name: str) -> EntryReport:
    """Tell where one entry is. A setback shows until its step succeeds: a retry does not flap."""
    if name not in observed.wanted:
        return EntryReport(engine_name=name, state=State.UNLOADING)
    setback = observed.setbacks.get(name)
    if setback is not None:
        state = State.FAILED if setback.final else _UNDER_WAY[setback.step]
        return EntryReport(
            engine_name=name,
            state=state,
            reason=setback.reason,
            message=setback.message,
            retry_seconds=setback.retry_seconds,
        )
    if _listed(observed, name):
        answered = name in observed.life.answered
        return EntryReport(engine_name=name, state=State.LOADED if answered else State.PROBE_PENDING)
    if name in observed.view.adapters:
        return _taken(observed, name)
    if observed.hexes[name] in observed.published:
        return _waiting_for_engine(observed, name)
    return _waiting_for_files(observed, name)


def is_settled(entry: EntryReport) -> bool:
    """Tell whether an entry has come to an end for now: it answers, or it failed with a reason."""
    return entry.state in {State.LOADED, State.FAILED}


def _next(observed: Observed, name: str) -> Action | None:
    setback = observed.setbacks.get(name)
    if setback is not None and observed.now < setback.due:
        return None
    digest_hex = observed.hexes[name]
    if digest_hex not in observed.published:
        blocked = digest_hex in observed.fetching or bool(observed.base_problem) or _lacks_credential(observed, name)
        return None if blocked else Fetch(name=name)
    if observed.view.health is not Health.UP:
        return None
    if name not in observed.view.adapters:
        return Load(name=name)
    if _listed(observed, name) and name not in observed.life.answered and name not in observed.probing:
        return Probe(name=name)
    return None


def _goodbye(observed: Observed, name: str) -> Action | None:
    digest_hex = observed.hexes[name]
    if observed.view.health is not Health.UP or digest_hex in observed.fetching:
        return None
    if name in observed.view.adapters:
        return Unload(name=name) if _listed(observed, name) else Forget(name=name)
    shared = any(observed.hexes[other] == digest_hex for other in observed.wanted)
    if digest_hex not in observed.published or shared:
        return Forget(name=name)
    # Another name of the same content may still be on its way out.
    held = observed.paths[digest_hex] in observed.view.adapters.values()
    return None if held else Remove(name=name, digest_hex=digest_hex)


def _distinct(observed: Observed, fetches: list[Fetch]) -> list[Fetch]:
    """Return the fetches that may start: one a content, a few at once."""
    by_content: dict[str, Fetch] = {}
    for fetch in fetches:
        by_content.setdefault(observed.hexes[fetch.name], fetch)
    return list(by_content.values())[: max(0, FETCHES_AT_ONCE - len(observed.fetching))]


def _listed(observed: Observed, name: str) -> bool:
    """Tell whether the engine has this name, from our directory of that content."""
    root = observed.view.adapters.get(name)
    return root is not None and root == observed.paths[observed.hexes[name]]


def _lacks_credential(observed: Observed, name: str) -> bool:
    credential = observed.wanted[name].hub.credential
    return credential is not None and credential not in observed.credentials


_UNDER_WAY = {Step.FETCH: State.FETCHING, Step.LOAD: State.LOADING, Step.PROBE: State.PROBE_PENDING}


def _taken(observed: Observed, name: str) -> EntryReport:
    return EntryReport(
        engine_name=name,
        state=State.FAILED,
        reason="EngineNameTaken",
        message=f"the engine has this name from {observed.view.adapters[name][:200]!r}, which the agent did not load:"
        " unload it there",
    )


def _waiting_for_engine(observed: Observed, name: str) -> EntryReport:
    if observed.view.health is Health.UP:
        return EntryReport(engine_name=name, state=State.LOADING)
    return EntryReport(
        engine_name=name, state=State.PENDING, reason=observed.view.reason, message=observed.view.problem[:1024]
    )


def _waiting_for_files(observed: Observed, name: str) -> EntryReport:
    if _lacks_credential(observed, name):
        return EntryReport(
            engine_name=name,
            state=State.WAITING_FOR_CREDENTIALS,
            reason=State.WAITING_FOR_CREDENTIALS.value,
            message="the Hub token is not mounted in the pod yet: kubelet brings it within about 80 s",
        )
    if observed.base_problem:
        return EntryReport(
            engine_name=name,
            state=State.PENDING,
            reason="BaseNotReadable",
            message=f"no adapter can be verified until the agent can read the base: {observed.base_problem}"[:1024],
        )
    fetching = observed.hexes[name] in observed.fetching
    return EntryReport(engine_name=name, state=State.FETCHING if fetching else State.PENDING)
