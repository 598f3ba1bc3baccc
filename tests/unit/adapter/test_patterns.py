"""PEFT's matching of names, compared with Python's regexes where those are safe to run."""

import re
from collections.abc import Callable, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lora_operator import adapter
from lora_operator.adapter import Code, EngineLimits
from lora_operator.adapter.literals import WORK_LIMIT
from lora_operator.adapter.patterns import Lookup, is_literal
from lora_operator.adapter.regex_syntax import EndlessRegexError
from lora_operator.adapter.regexes import Budget
from support.adapters import make_adapter

PARTS = st.lists(
    st.sampled_from(["layers", "1", "11", "q_proj", "q", "self.attn", "self_attn"]), min_size=1, max_size=4
)


@given(PARTS, PARTS, st.booleans())
def test_a_literal_key_matches_what_pefts_regex_matches(
    key_parts: list[str], name_parts: list[str], anchored: bool
) -> None:
    key, module = ("^" if anchored else "") + ".".join(key_parts), ".".join(name_parts)
    expected = re.match(rf"(.*\.)?({key})$", module) is not None
    assert Lookup({key: True}, default=False).of(module) is expected


def test_the_first_key_wins() -> None:
    lookup = Lookup({"1.q": 4, "q": 8, "layers.1.q": 16}, default=2)
    assert [lookup.of(name) for name in ("layers.1.q", "layers.2.q", "layers.2.k")] == [4, 8, 2]


@pytest.mark.parametrize("key", ["a|b", "(q)", "q.*", "q+", "[qv]_proj", "q$", "", "a\nb", "q" * 600])
def test_anything_else_is_no_literal(key: str) -> None:
    assert not is_literal(key)


@given(st.lists(PARTS, min_size=1, max_size=6), PARTS, st.data())
def test_among_several_keys_the_first_that_matches_counts(
    keys: list[list[str]], name_parts: list[str], data: st.DataObject
) -> None:
    module = ".".join(name_parts)
    written = {data.draw(st.sampled_from(["", "^"])) + ".".join(parts): index for index, parts in enumerate(keys)}
    matching = [value for key, value in written.items() if re.match(rf"(.*\.)?({key})$", module)]
    assert Lookup(written, default=-1).of(module) == next(iter(matching), -1)


def full_names(layers: int, parts: Sequence[str]) -> list[str]:
    return [f"model.layers.{layer}.{part}" for layer in range(layers) for part in parts]


DENSE = [f"self_attn.{name}" for name in ("q_proj", "k_proj", "v_proj", "o_proj")]
DENSE += [f"mlp.{name}" for name in ("gate_proj", "up_proj", "down_proj")]
EXPERTS = [f"mlp.experts.{number}.{name}" for number in range(384) for name in ("gate_proj", "up_proj", "down_proj")]


@pytest.mark.parametrize(
    ("keys", "modules"),
    [
        pytest.param(full_names(126, DENSE), full_names(126, DENSE), id="EVA's key for each module of the largest"),
        pytest.param(DENSE, full_names(61, [*DENSE, *EXPERTS]), id="a key a kind, and experts by the hundred"),
        pytest.param(full_names(61, DENSE), full_names(61, [*DENSE, *EXPERTS]), id="a key a module, and experts"),
    ],
)
def test_real_configs_take_a_part_of_the_work_that_is_allowed(keys: list[str], modules: list[str]) -> None:
    lookup = Lookup({key: number + 1 for number, key in enumerate(keys)}, default=0)
    assert {lookup.of(name) for name in modules} >= set(range(1, len(keys) + 1))
    assert lookup.refused == []
    assert lookup.work < WORK_LIMIT / 2


@pytest.mark.timeout(60)
@pytest.mark.parametrize(
    "key",
    [
        pytest.param(lambda number: "a." * 100 + str(number), id="long dotted names"),
        pytest.param(lambda number: "." * (200 + number % 200) + str(number), id="dots alone"),
        pytest.param(lambda number: f"{number:011b}".replace("1", ".") * 30, id="dots in other places each"),
    ],
)
def test_keys_made_to_keep_a_processor_busy_cost_no_more_than_is_allowed(key: Callable[[int], str]) -> None:
    lookup = Lookup({key(number): 8 for number in range(2000)}, default=4)
    for number in range(2000):
        lookup.of(f"{'a.' * 190}{number}")
    assert lookup.work <= WORK_LIMIT + 512


def test_keys_that_cost_more_are_refused() -> None:
    keys = {f"{number:012b}".replace("1", ".") * 20: 8 for number in range(3000)}
    modules = [f"{number}.{'a' * 240}" for number in range(3000)]
    deep = {f"base_model.model.{name}.lora_A.weight": ("F32", (0, 1), b"") for name in modules}
    verdict = adapter.inspect(make_adapter(config={"rank_pattern": keys}, tensors=deep).parts(), None, EngineLimits())
    assert Code.PATTERN_NOT_SUPPORTED in {finding.code for finding in verdict.errors}


@pytest.mark.timeout(60)
def test_many_regexes_take_no_more_steps_together_than_one_may() -> None:
    budget = Budget()
    lookup = Lookup({f".*a.{{200}}{number}": 8 for number in range(200)}, default=4, budget=budget)
    for number in range(200, 400):
        lookup.of("".join("ab"[int(bit)] for bit in f"{3**number:0400b}"[:400]))
    assert [type(error) for _, error in lookup.refused] == [EndlessRegexError]
    assert -10_000 < budget.left < 0


@pytest.mark.timeout(60)
def test_names_made_to_keep_a_processor_busy_are_refused_instead() -> None:
    deep = {f"base_model.model.{'a.' * 190}{number}.lora_A.weight": ("F32", (0, 1), b"") for number in range(4_000)}
    verdict = adapter.inspect(make_adapter(tensors=deep).parts(), None, EngineLimits())
    assert Code.PATTERN_NOT_SUPPORTED in {finding.code for finding in verdict.errors}
