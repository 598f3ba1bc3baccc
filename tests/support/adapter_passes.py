"""What a LoRAAdapter pass observed, built without an apiserver: an adapter, its engine, and what each pod says."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from lora_operator.api.lora_adapter import AdapterStatus, LoRAAdapter
from lora_operator.api.lora_engine import LoRAEngine
from lora_operator.conditions import Fact, false, fold, true
from lora_operator.lora_adapter.observed import Observed, PodView
from lora_operator.protocol.door import EntryReport, State
from lora_operator.protocol.manifest import Entry
from support.objects import BASE, make_adapter, make_engine

Object = dict[str, Any]
NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)


def with_facts(obj: Object, *facts: Fact, **status: Any) -> Object:
    """Return an object with a status that says this."""
    conditions = [item.model_dump(mode="json", by_alias=True) for item in fold((), facts, generation=1, now=NOW)]
    return obj | {"status": {"conditions": conditions} | status}


def adopted_engine(*, base: str = BASE, **spec: Any) -> Object:
    """Return an engine that holds adapters."""
    facts = true("Ready", "Ready"), true("Adopted", "Adopted")
    return with_facts(make_engine(**spec), *facts, baseModel=base, flags={"maxLoraRank": 16})


def refused_engine(reason: str, message: str) -> Object:
    """Return an engine whose Deployment can't be adopted."""
    return with_facts(make_engine(), false("Ready", reason, message), false("Adopted", reason, message))


def view(name: str, *entries: Entry, silent: bool = False, **others: EntryReport) -> PodView:
    """Return a Ready pod on which these versions answer; `others` are reports of versions that do not."""
    loaded = [EntryReport(engine_name=entry.engine_name, state=State.LOADED) for entry in entries]
    reports = {report.engine_name: report for report in [*loaded, *others.values()]}
    return PodView(name=name, entries=reports, silent=silent)


def unheard(name: str, *, silent: bool = False) -> PodView:
    """Return a Ready pod whose agent has not spoken since the operator's start."""
    return PodView(name=name, entries=None, silent=silent)


def told(entry: Entry, state: State, reason: str = "", message: str = "", retry: float | None = None) -> EntryReport:
    """Return what an agent says of a version that does not answer."""
    return EntryReport(engine_name=entry.engine_name, state=state, reason=reason, message=message, retry_seconds=retry)


def observed(obj: Object | None = None, *, engine: Object | None = None, **given: Any) -> Observed:
    """Return what a pass observes of an adapter on an adopted engine without pods."""
    adapter = make_adapter() if obj is None else obj
    values: dict[str, Any] = {
        "allowed": True,
        "job": None,
        "held": (),
        "written": (),
        "pods": (),
        "starting": False,
        "suspended": False,
        "now": NOW,
    }
    return Observed(
        obj=adapter,
        adapter=LoRAAdapter.model_validate(adapter),
        engine=LoRAEngine.model_validate(adopted_engine() if engine is None else engine),
        **(values | given),
    )


def outline(given: AdapterStatus) -> dict[str, tuple[str, str]]:
    """Return each condition's status and reason."""
    return {item.type: (item.status.value, item.reason) for item in given.conditions}
