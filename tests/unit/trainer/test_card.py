"""The model card tells where an adapter comes from, in words and in what the Hub reads."""

from __future__ import annotations

import pytest
import yaml

from lora_operator.protocol.training import GateVerdict
from lora_trainer import card
from lora_trainer.lineage import Lineage
from lora_trainer.spec import TrainSpec


def render(
    *, on_hub: bool = True, job_uid: str = "", repo: str | None = "acme/adapter", gate: GateVerdict | None = None
) -> str:
    wanted = TrainSpec.model_validate(
        {
            "baseModel": {"name": "acme/tiny"},
            "dataset": {"source": {"hub": {"repo": "acme/talk"}}, "format": "Messages"},
            "lora": {"r": 20},
            "evaluation": {"fraction": "0.1"},
            "output": {} if repo is None else {"hub": {"repo": repo}},
        }
    )
    lineage = Lineage(
        base_revision="b" * 40,
        dataset_name="acme/talk",
        dataset_revision="d" * 40,
        dataset_on_hub=on_hub,
        dataset_rows=12,
        steps=20,
        metrics={"loss": "1.5"},
        job_uid=job_uid,
        libraries={"trl": "1.16.0"},
        evaluation={"eval_loss": "1.25"} if gate is not None else {},
        gate=gate,
    )
    return card.render(wanted, lineage, rank=wanted.lora.r)


def front_matter(text: str) -> object:
    return yaml.safe_load(text.split("---\n")[1])


def test_the_front_matter_links_base_and_data_set() -> None:
    assert front_matter(render(on_hub=True)) == {
        "base_model": "acme/tiny",
        "base_model_relation": "adapter",
        "library_name": "peft",
        "pipeline_tag": "text-generation",
        "tags": ["lora", "sft", "lora-operator"],
        "datasets": ["acme/talk"],
    }


def test_a_data_set_that_is_not_on_the_hub_is_not_linked() -> None:
    found = front_matter(render(on_hub=False))
    assert isinstance(found, dict)
    assert "datasets" not in found


def test_revisions_recipe_metrics_and_job_are_told() -> None:
    text = render(on_hub=True, job_uid="1234")
    for said in ("b" * 40, "d" * 40, "12 rows", "loraAlpha: 32", "| loss | 1.5 |", "`1234`", "trl 1.16.0"):
        assert said in text


def test_what_was_measured_on_rows_that_were_held_back_is_told_with_the_gates_word() -> None:
    gate = GateVerdict(passed=True, metric="eval_loss", value="1.25", limit="1.5", against="threshold")
    section = render(gate=gate).partition("## Evaluation\n")[2]
    for said in ("0.1 of the rows, held back", "| eval_loss | 1.25 |", "Gate: passed (eval_loss 1.25, the limit of"):
        assert said in section
    assert "## Evaluation" not in render()


def test_the_command_to_serve_has_a_rank_that_vllm_takes() -> None:
    assert "--max-lora-rank 32 --lora-modules adapter=acme/adapter" in render(on_hub=True)


@pytest.mark.parametrize("before", ["acme/adapter", None])
def test_a_card_takes_the_name_that_the_adapter_is_published_under(before: str | None) -> None:
    told = card.renamed(render(on_hub=True, repo=before), "other/Named_Since")
    assert told == render(on_hub=True, repo="other/Named_Since")
    assert card.renamed(told, "other/Named_Since") == told
