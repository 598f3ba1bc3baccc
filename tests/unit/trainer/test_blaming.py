"""What a library raises while a trainer is put together is the spec's fault, or is not, by its type."""

from __future__ import annotations

from typing import Any

import pytest

from lora_operator.protocol.training import Reason
from lora_trainer import building
from lora_trainer.by_hand import TrainSpec
from lora_trainer.result import Refusal


class OutOfMemoryError(RuntimeError):
    """As torch has one."""


def wanted(**extra: Any) -> TrainSpec:
    return TrainSpec.model_validate(
        {
            "baseModel": {"name": "acme/tiny"},
            "dataset": {"source": {"path": "rows.jsonl"}, "format": "Text"},
            "training": {"extraArgs": extra},
        }
    )


@pytest.mark.parametrize("error", [ValueError("no"), TypeError("no"), ImportError("no")])
def test_parts_that_do_not_fit_are_the_fault_of_the_spec(error: Exception) -> None:
    with pytest.raises(Refusal, match=r"^training, lora and dataset: no$") as refused, building.blaming(wanted()):
        raise error
    assert refused.value.reason is Reason.CONFIG_INVALID


@pytest.mark.parametrize("error", [RuntimeError("no"), NotImplementedError("no"), AttributeError("no"), KeyError("no")])
def test_what_is_raised_deep_down_is_laid_on_extra_args_where_there_are_any(error: Exception) -> None:
    told = rf"^training.extraArgs \(ddp_backend\), as far as can be told: {type(error).__name__}: "
    with pytest.raises(Refusal, match=told) as refused, building.blaming(wanted(ddp_backend="x")):
        raise error
    assert refused.value.reason is Reason.CONFIG_INVALID
    with pytest.raises(type(error)), building.blaming(wanted()):
        raise error


def test_memory_and_devices_are_nobody_s_fault() -> None:
    with pytest.raises(OutOfMemoryError), building.blaming(wanted(ddp_backend="x")):
        raise OutOfMemoryError
