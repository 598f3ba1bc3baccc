"""adapter_config.json as hostile input."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lora_operator import adapter
from lora_operator.adapter import Code, EngineLimits
from support.adapters import TINY_LLAMA, make_adapter

BASE = adapter.base_from_config(TINY_LLAMA.config())
CPU = EngineLimits(max_lora_rank=16, device="cpu")
GOOD = make_adapter()

HOSTILE = {
    "empty": b"",
    "a list": b"[]",
    "null": b"null",
    "not JSON": b"{'r': 8}",
    "not UTF-8": b'{"r": "\xff"}',
    "UTF-16": json.dumps(GOOD.config).encode("utf-16"),
    "a byte order mark": b"\xef\xbb\xbf" + GOOD.files[adapter.CONFIG],
    "half a surrogate pair in a value": json.dumps(GOOD.config | {"revision": "\ud800x"}).encode(),
    "half a surrogate pair in a name": json.dumps(GOOD.config | {"\udfff": 1}).encode(),
    "half a surrogate pair deep inside": json.dumps(GOOD.config | {"eva_config": {"a": ["\ud800"]}}).encode(),
    "NaN in a field that nobody reads": json.dumps(GOOD.config | {"eva_config": {"rho": float("nan")}}).encode(),
    "a float beyond all floats": b'{"peft_type": "LORA", "lora_alpha": 1e999}',
    "nested 100,000 deep": b'{"a":' * 100_000 + b"1" + b"}" * 100_000,
    "two megabytes": b'{"a": "' + b"x" * 2 * 2**20 + b'"}',
    "a million values": b"[" + b"1," * 500_000 + b"1]",
    "an integer of 10,000 digits": b'{"r": ' + b"9" * 10_000 + b"}",
    "a rank of 2^63": json.dumps(GOOD.config | {"r": 2**63}).encode(),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_config_is_refused_in_a_few_words(name: str) -> None:
    files = GOOD.with_file(adapter.CONFIG, HOSTILE[name])
    verdict = adapter.inspect(files.parts(), BASE, CPU)
    assert verdict.reason == Code.MALFORMED_CONFIG
    assert len(verdict.message()) <= 1024
    json.dumps(verdict.message(), ensure_ascii=False).encode()


def test_the_finding_names_the_field_that_is_not_finite() -> None:
    files = make_adapter(config={"loftq_config": {"bits": [1, float("inf")]}})
    verdict = adapter.inspect(files.parts(), BASE, CPU)
    assert [(finding.field, finding.found) for finding in verdict.findings] == [("loftq_config.bits[1]", "inf")]
    assert verdict.servable


def test_the_finding_shows_what_was_found_and_how_to_write_it() -> None:
    shown = adapter.inspect(make_adapter(config={"layers_to_transform": ["0", 1]}).parts(), BASE, CPU).errors[0]
    assert (shown.field, shown.found) == ("layers_to_transform", '["0", 1]')
    marked = GOOD.with_file(adapter.CONFIG, b"\xef\xbb\xbf" + GOOD.files[adapter.CONFIG])
    assert "save it without" in adapter.inspect(marked.parts(), BASE, CPU).message()
    unclear = make_adapter(config={"target_modules": r"(?i)(.*\.)*(q|v)_proj"})
    assert "write the modules' names" in adapter.inspect(unclear.parts(), BASE, CPU).message()


@pytest.mark.timeout(60)
@pytest.mark.parametrize(
    "field", ["target_modules", "exclude_modules", "rank_pattern", "alpha_pattern", "layers_pattern"]
)
def test_a_regex_that_never_ends_is_never_run(field: str) -> None:
    endless = "(" * 3 + "(.*)*" + ")*" * 3 + "X$"
    value = {endless: 8} if field.endswith("_pattern") and field != "layers_pattern" else endless
    config = {field: value} | ({"layers_to_transform": [0, 1]} if field == "layers_pattern" else {})
    verdict = adapter.inspect(make_adapter(config=config).parts(), BASE, CPU)
    assert {finding.code for finding in verdict.findings} == {Code.PATTERN_NOT_SUPPORTED}


TEXTS = st.text("aqLORA_.(é\ud800\n", max_size=4)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXTS,
    lambda values: st.lists(values, max_size=3) | st.dictionaries(TEXTS, values, max_size=3),
    max_leaves=5,
)


@given(
    st.dictionaries(
        st.sampled_from([*GOOD.config, "lora_bias", "target_parameters", "kasa_config"]), VALUES, max_size=4
    )
)
def test_any_value_of_any_field_gives_a_verdict(changes: dict[str, object]) -> None:
    files = GOOD.with_file(adapter.CONFIG, json.dumps(GOOD.config | changes).encode())
    verdict = adapter.inspect(files.parts(), BASE, CPU)
    assert verdict.servable is not bool(verdict.errors)
    verdict.message().encode()


@given(st.binary(max_size=60))
def test_any_bytes_give_a_verdict(data: bytes) -> None:
    verdict = adapter.inspect(GOOD.with_file(adapter.CONFIG, data).parts(), BASE, CPU)
    assert not verdict.servable
