"""PEFT's matching of names, compared with Python's regexes where those are safe to run."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lora_operator import adapter
from lora_operator.adapter import Code, EngineLimits
from lora_operator.adapter.patterns import Lookup, is_literal
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


@pytest.mark.timeout(60)
def test_names_made_to_keep_a_processor_busy_are_refused_instead() -> None:
    names = [f"layers.{number}.q_proj" for number in range(4_000)]
    deep = {f"base_model.model.{'a.' * 150}{number}.lora_A.weight": ("F32", (0, 1), b"") for number in range(4_000)}
    config = {"rank_pattern": dict.fromkeys(names, 8), "target_modules": names}
    verdict = adapter.inspect(make_adapter(config=config, tensors=deep).parts(), None, EngineLimits())
    assert Code.PATTERN_NOT_SUPPORTED in {finding.code for finding in verdict.errors}
