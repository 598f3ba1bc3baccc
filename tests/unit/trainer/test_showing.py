"""What `--print-defaults` prints is every default, and a spec that says them all is the spec that says none."""

from __future__ import annotations

import yaml

from lora_trainer import showing
from lora_trainer.spec import TrainSpec

SAID = {"baseModel": {"name": "acme/tiny"}, "dataset": {"source": {"path": "rows.jsonl"}, "format": "Text"}}


def test_every_group_is_told() -> None:
    told = yaml.safe_load(showing.defaults())
    assert (told["checkpoint"]["intervalSeconds"], told["evaluation"]["gate"]["margin"]) == (600, "0")
    assert (told["baseModel"]["revision"], told["output"]["hub"]["private"]) == ("main", True)


def test_a_spec_that_says_the_defaults_is_one_that_says_nothing() -> None:
    told = yaml.safe_load(showing.defaults())
    told["lora"].pop("initFrom")
    said = {
        "baseModel": SAID["baseModel"] | told["baseModel"],
        "dataset": SAID["dataset"] | {"split": told["dataset"]["split"]},
        "lora": told["lora"],
        "training": told["training"],
        "method": told["method"],
        "suspend": told["suspend"],
        "backoffLimit": told["backoffLimit"],
    }
    assert TrainSpec.model_validate(said) == TrainSpec.model_validate(SAID)
