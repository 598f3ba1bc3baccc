"""Which engine a case gets: harmless ones share one, a poisonous one has its own, and the next starts meanwhile."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import pytest

from support import adapter_corpus, real_engine
from support.judge import court, engine_side
from support.judge.court import Court
from support.judge.engine_side import Bench
from support.judge.rulings import Outcome

BY_NAME = {case.name: case for case in adapter_corpus.CASES}
HARMLESS = [BY_NAME["two targets"], BY_NAME["DoRA"]]
POISONOUS = [BY_NAME["1e30"], BY_NAME["NaN in the last element, F32"]]


@dataclass(kw_only=True)
class FakeEngine:
    folder: Path
    log: list[str]
    number: int = field(default=0)

    def launch(self) -> None:
        self.number = 1 + sum(entry.startswith("launch") for entry in self.log)
        self.log.append(f"launch {self.number}")

    def wait(self) -> None:
        self.log.append(f"wait {self.number}")

    def kill(self) -> None:
        self.log.append(f"kill {self.number}")


@pytest.fixture
def log(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[str]:
    log: list[str] = []

    def asked(bench: Bench, path: Path) -> Outcome:
        log.append(f"ask {bench.engine.number}")  # type: ignore[attr-defined]
        return Outcome(refused="500 no")

    monkeypatch.setattr(real_engine, "prepare", lambda folder, **_: FakeEngine(folder=folder, log=log))
    monkeypatch.setattr(engine_side.Bench, "settle", lambda *_: None)
    monkeypatch.setattr(engine_side.Bench, "try_adapter", asked)
    monkeypatch.setattr(court.bases, "make", lambda *_: tmp_path)
    monkeypatch.setattr(court, "base_from_directory", lambda _: None)
    monkeypatch.setattr(
        Court, "_ask_peft", lambda self, _, adapters: self._peft.update(dict.fromkeys(adapters, Outcome()))
    )
    return log


def test_a_poisonous_case_has_an_engine_of_its_own_that_started_before(log: list[str], tmp_path: Path) -> None:
    hearing = Court(tmp_path / "court")
    hearing.hear_peft([*HARMLESS, *POISONOUS])
    for case in (*HARMLESS, *POISONOUS):
        hearing.hear(case)
    hearing.close()
    assert log == [
        *("launch 1", "wait 1", "ask 1", "ask 1", "kill 1"),
        *("launch 2", "wait 2", "launch 3", "ask 2", "kill 2"),
        *("wait 3", "ask 3", "kill 3"),
    ]
    assert hearing.engine_starts == 3


def test_each_base_has_an_engine(log: list[str], tmp_path: Path) -> None:
    hearing = Court(tmp_path / "court")
    cases = [BY_NAME[name] for name in ("two targets", "Phi-3: projections apart", "Phi-3: embed_tokens", "1e30")]
    hearing.hear_peft(cases)
    # The first two are the same files: what is known of one on its base says nothing of the other.
    assert len({hearing.hear(case).content for case in cases}) == 4
    hearing.close()
    assert [entry for entry in log if entry.startswith("ask")] == ["ask 1", "ask 2", "ask 2", "ask 3"]


def test_an_engine_that_waits_for_its_turn_does_not_outlive_the_court(log: list[str], tmp_path: Path) -> None:
    hearing = Court(tmp_path / "court")
    hearing.hear_peft(POISONOUS)
    hearing.hear(POISONOUS[0])
    hearing.close()
    assert log[-1] == "kill 2"
    assert sum(entry.startswith("launch") for entry in log) == sum(entry.startswith("kill") for entry in log) == 2


def test_what_is_known_is_not_asked_again(log: list[str], tmp_path: Path) -> None:
    first = Court(tmp_path / "first")
    first.hear_peft(POISONOUS)
    content = first.hear(POISONOUS[0]).content
    first.close()
    log.clear()
    again = Court(tmp_path / "again", {content: Outcome(harm="dies")}, {content: Outcome()})
    again.hear_peft(POISONOUS[:1])
    assert again.hear(POISONOUS[0]).said == "dies"
    assert log == []
