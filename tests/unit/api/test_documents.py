"""Every condition of a kind has its row in the kind's page."""

from __future__ import annotations

import re
from enum import StrEnum
from pathlib import Path

import pytest

from lora_operator.api.lora_adapter import AdapterCondition
from lora_operator.api.lora_engine import EngineCondition
from lora_operator.api.lora_training_job import JobCondition

PAGES = Path(__file__).parents[3] / "docs" / "api"


@pytest.mark.parametrize(
    ("page", "conditions"),
    [
        pytest.param("loraengine.md", EngineCondition, id="LoRAEngine"),
        pytest.param("loraadapter.md", AdapterCondition, id="LoRAAdapter"),
        pytest.param("loratrainingjob.md", JobCondition, id="LoRATrainingJob"),
    ],
)
def test_a_page_lists_the_conditions_of_its_kind(page: str, conditions: type[StrEnum]) -> None:
    section = (PAGES / page).read_text().partition("\n## Conditions\n")[2]
    assert set(re.findall(r"^\| `(\w+)` \|", section, re.MULTILINE)) == {condition.value for condition in conditions}
