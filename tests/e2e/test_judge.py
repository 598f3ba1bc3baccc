"""A part of `make judge`: adapters of each kind before a real vLLM and PEFT, in two engine starts."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from support.adapter_corpus import Case
from support.judge import CASES, Court

pytestmark = pytest.mark.timeout(1200)

HARMLESS = (
    "all linear modules",
    "tensors in F8_E4M3",
    "embed_tokens as PEFT saves it by default",
    "embed_tokens beside other embeddings than the base's",
    "rank_pattern, alpha_pattern and rsLoRA",
    "rank_pattern by a regex",
    "negative alpha",
    "targets by a regex with classes",
    "EVA with its config",
    "half the base's width",
    "rank too high",
    "config says another rank",
    "targets narrower than the tensors",
    "DoRA",
    "A without B",
    "truncated by 4 bytes",
)
POISONOUS = "NaN in the last element, BF16"
BY_NAME = {case.name: case for case in CASES}


@pytest.fixture(scope="module")
def court(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Court]:
    court = Court(tmp_path_factory.mktemp("court"))
    try:
        court.hear_peft([BY_NAME[name] for name in (*HARMLESS, POISONOUS)])
        yield court
    finally:
        court.close()


@pytest.mark.parametrize("case", [BY_NAME[name] for name in (*HARMLESS, POISONOUS)], ids=lambda case: case.name)
def test_the_library_says_what_vllm_and_peft_do(case: Case, court: Court) -> None:
    ruling = court.hear(case)
    assert ruling.agrees, str(ruling)


def test_only_the_poisonous_one_needed_an_engine_of_its_own(court: Court) -> None:
    assert court.engine_starts <= 2
