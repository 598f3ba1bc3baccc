"""When the library's verdict counts as right: held against what a real engine and PEFT would have said."""

from __future__ import annotations

import math
import os
from datetime import date
from pathlib import Path

import pytest

from support.judge import content_of, table
from support.judge.rulings import Outcome, Ruling, Spoken
from support.judge.table import render, versions

HELLO = Spoken((1, 2), (-0.5, -1.5))
CLOSE = Spoken((1, 2), (-0.501, -1.499))
OTHER = Spoken((1, 3), (-0.5, -1.5))
OFF = Spoken((1, 2), (-0.51, -1.5))
NAN = Spoken((1, 2), (math.nan, math.nan))
NOTHING = Spoken((), (), trouble="500 Out of range float values are not JSON compliant")


def answering(*answers: Spoken, harm: str | None = None) -> Outcome:
    return Outcome(answers=answers, harm=harm)


REFUSED = Outcome(refused="500 no")


def ruling(*, servable: bool, engine: Outcome, peft: Outcome, why: str = "") -> Ruling:
    codes = () if servable else ("RankTooHigh",)
    return Ruling(case="a", content="0", servable=servable, codes=codes, engine=engine, peft=peft, why=why)


@pytest.mark.parametrize(
    ("engine", "peft", "said"),
    [
        pytest.param(answering(HELLO), answering(CLOSE), "as PEFT", id="the same answer"),
        pytest.param(answering(HELLO), answering(OTHER), "otherwise than PEFT", id="another token"),
        pytest.param(answering(HELLO), answering(OFF), "otherwise than PEFT", id="another log-probability"),
        pytest.param(answering(NAN), answering(NAN), "otherwise than PEFT", id="NaN from both"),
        pytest.param(answering(NOTHING), answering(NOTHING), "otherwise than PEFT", id="nothing from both"),
        pytest.param(answering(), answering(), "otherwise than PEFT", id="not asked"),
        pytest.param(answering(HELLO), Outcome(answers=(HELLO,), dropped=("layers.9",)), "as PEFT, which drops tensors",
                     id="without a part of the adapter, both"),
        pytest.param(answering(HELLO), REFUSED, "answers; PEFT refuses", id="PEFT refuses"),
        pytest.param(REFUSED, REFUSED, "refused", id="both refuse"),
        pytest.param(answering(HELLO, harm="spoils the base's answers"), answering(HELLO), "spoils the base's answers",
                     id="right, at others' cost"),
        pytest.param(Outcome(refused="500 no", harm="hangs"), REFUSED, "hangs", id="refused, and then silent"),
    ],
)  # fmt: skip
def test_only_what_is_answered_as_peft_does_is_right(engine: Outcome, peft: Outcome, said: str) -> None:
    for servable in (True, False):
        heard = ruling(servable=servable, engine=engine, peft=peft)
        assert heard.said == said
        assert heard.agrees is (servable == (said == "as PEFT"))


def test_a_strict_refusal_agrees_where_the_corpus_says_why() -> None:
    right = {"engine": answering(HELLO), "peft": answering(HELLO)}
    assert ruling(servable=False, why="the format forbids it", **right).agrees
    assert not ruling(servable=True, engine=answering(HELLO), peft=answering(OTHER), why="so what").agrees


def test_the_page_counts_what_disagrees_and_names_what_was_not_heard() -> None:
    row = {"date": "2026-11-25", "versions": versions(), "codes": ["DoRANotSupported"], "why": ""}
    known = {
        "good | bad": row | {"case": "good | bad", "servable": True, "said": "as PEFT", "agrees": True},
        "wrong": row | {"case": "wrong", "servable": False, "said": "as PEFT", "agrees": False},
        "of old": row | {"case": "of old", "servable": True, "said": "as PEFT", "agrees": True, "versions": "vllm 0.1"},
    }
    page = render(["good | bad", "wrong", "of old", "never"], known)
    assert "2 adapters heard, 1 verdicts right, 1 wrong" in page
    assert "Not heard: of old, never." in page
    assert "| good \\| bad | servable | as PEFT |  |" in page
    assert "| wrong | `DoRANotSupported` | as PEFT | **disagrees** |" in page


def test_what_was_heard_is_known_again_by_its_content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(table, "RECORD", tmp_path / "judge" / "rulings.json")
    spoilt = answering(HELLO, NOTHING, harm="spoils the base's answers")
    table.record(ruling(servable=False, engine=spoilt, peft=REFUSED), on=date(2026, 11, 25))
    assert table.heard_before() == {"0": spoilt}
    monkeypatch.setattr(table, "versions", lambda: "vllm 9")
    assert table.heard_before() == {}


def test_another_file_is_another_content(tmp_path: Path) -> None:
    seen = set()
    for number, change in enumerate(("", "byte", "name", "link", "pipe")):
        folder = tmp_path / str(number)
        folder.mkdir()
        (folder / "a").write_bytes(b"xy" if change == "byte" else b"x")
        (folder / ("c" if change == "name" else "b")).write_bytes(b"")
        if change == "link":
            (folder / "d").symlink_to("a")
        if change == "pipe":
            os.mkfifo(folder / "d")
        seen.add(content_of(folder))
    assert len(seen) == 5
