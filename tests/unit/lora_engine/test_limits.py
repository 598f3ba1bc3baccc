"""What operator and agent know of an engine, as the adapter library is asked about it."""

from __future__ import annotations

from typing import Any

import pytest

from lora_operator.adapter import EngineLimits, base_from_config, inspect
from lora_operator.api import LoRAEngine
from lora_operator.engine_terms import limits_of
from lora_operator.engines.limits import completed
from support.adapters import TINY_LLAMA, make_adapter
from support.objects import make_engine

Object = dict[str, Any]


def engine(flags: Object, facts: Object) -> LoRAEngine:
    """Return an engine whose status says this."""
    return LoRAEngine.model_validate(make_engine() | {"status": {"flags": flags, "engine": facts}})


def test_an_engine_is_judged_by_all_that_its_status_tells() -> None:
    flags = {"maxLoraRank": 32, "dtype": "half", "loraDtype": "bfloat16", "loraTargetModules": ["q_proj"]}

    found = limits_of(engine(flags, {"version": "0.32.0", "device": "cuda"}), base=None)

    assert found == EngineLimits(
        max_lora_rank=32,
        device="cuda",
        dtype="half",
        version="0.32.0",
        lora_dtype="bfloat16",
        target_modules=("q_proj",),
    )


def test_what_is_not_known_stays_unknown() -> None:
    assert limits_of(LoRAEngine.model_validate(make_engine()), base=None) == EngineLimits()
    assert limits_of(None, base=None) == EngineLimits()


@pytest.mark.parametrize(
    ("dtype", "base", "served"),
    [
        pytest.param("auto", {"torch_dtype": "float16"}, "float16", id="of the base"),
        pytest.param("auto", {"text_config": {"dtype": "bfloat16"}}, "bfloat16", id="of the base's decoder"),
        pytest.param("auto", {"dtype": "float32"}, None, id="the card decides"),
        pytest.param("auto", None, None, id="of a base that is not known"),
        pytest.param("bfloat16", {"dtype": "float16"}, "bfloat16", id="given"),
        pytest.param(None, {"dtype": "float16"}, None, id="not known whether it is given"),
    ],
)
def test_the_dtype_is_the_flag_s_and_auto_is_the_base_s(
    dtype: str | None, base: Object | None, served: str | None
) -> None:
    assert completed(EngineLimits(dtype=dtype), base=base).dtype == served


@pytest.mark.parametrize(
    ("facts", "servable"),
    [
        pytest.param({"device": "cuda", "version": "0.32.0"}, True, id="an accelerator"),
        pytest.param({"device": "cpu"}, False, id="a CPU"),
        pytest.param({"device": "cuda", "version": "0.32.0+cpu"}, False, id="a CPU by what the engine says itself"),
    ],
)
def test_a_lora_on_the_head_is_refused_only_where_it_spoils_answers(facts: Object, *, servable: bool) -> None:
    config = TINY_LLAMA.config()
    files = make_adapter(targets=("q_proj", "lm_head"))

    limits = limits_of(engine({"maxLoraRank": 16}, facts), base=config)

    assert inspect(files.parts(), base_from_config(config), limits).servable is servable
