"""What an agent has to be told, and who has to hear what it said."""

from __future__ import annotations

from lora_operator.engine_pod.plan import adapter_of, engine_names_changed, shards_to_push
from lora_operator.labels import Key
from lora_operator.protocol.door import EngineReport, EntryReport, Report, State
from lora_operator.protocol.manifest import Shard


def report(*entries: EntryReport, acted: dict[str, int] | None = None) -> Report:
    engine = EngineReport(healthy=True)
    return Report(instance="i", sequence=1, agent_version="1", engine=engine, entries=entries, shards=acted or {})


def entry(name: str, state: State = State.LOADED, message: str = "") -> EntryReport:
    return EntryReport(engine_name=name, state=state, message=message)


SHARDS = (Shard(index=0, revision=3), Shard(index=1, revision=7))


def test_an_agent_that_was_never_heard_gets_every_shard() -> None:
    assert shards_to_push(SHARDS, None) == SHARDS


def test_an_agent_gets_only_what_is_newer_than_what_it_acted_on() -> None:
    assert shards_to_push(SHARDS, report(acted={"0": 3, "1": 6})) == SHARDS[1:]
    assert shards_to_push(SHARDS, report(acted={"0": 4})) == SHARDS[1:]
    assert shards_to_push(SHARDS, report(acted={"0": 3, "1": 7})) == ()


def test_only_names_whose_state_differs_are_news() -> None:
    before = report(entry("a"), entry("b", State.LOADING), entry("c"))
    after = report(entry("a"), entry("b"), entry("d"))

    assert engine_names_changed(before, after) == {"b", "c", "d"}
    assert engine_names_changed(before, before) == frozenset()


def test_the_first_report_and_the_loss_of_one_are_news_of_every_entry() -> None:
    told = report(entry("a"), entry("b"))

    assert engine_names_changed(None, told) == engine_names_changed(told, None) == {"a", "b"}


def test_an_engine_name_tells_its_adapter_also_where_the_name_has_dots() -> None:
    assert adapter_of("team-a.bot.0123456789ab") == Key("LoRAAdapter", "team-a", "bot")
    assert adapter_of("team-a.bot.v1.5.0123456789ab") == Key("LoRAAdapter", "team-a", "bot.v1.5")
    assert [adapter_of(name) for name in ("by-hand", "by.hand", "")] == [None, None, None]
