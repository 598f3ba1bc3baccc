"""Files, digest and engine name."""

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lora_operator.adapter import digest, engine_name, weights_files

CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"
SHARDS = [f"adapter_model-0000{number}-of-00002.safetensors" for number in (1, 2)]
INDEX = "adapter_model.safetensors.index.json"


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        pytest.param([WEIGHTS, "README.md", CONFIG, "tokenizer.json"], [CONFIG, WEIGHTS], id="others are left out"),
        pytest.param([CONFIG, WEIGHTS, "adapter_model.bin"], [CONFIG, WEIGHTS], id="a pickle is left out"),
        pytest.param([CONFIG, "adapter_model.bin"], [CONFIG], id="a pickle is no weights"),
        pytest.param([CONFIG, INDEX, *SHARDS], [*SHARDS, CONFIG, INDEX], id="shards with their index"),
        pytest.param([CONFIG, WEIGHTS, INDEX, *SHARDS], [CONFIG, WEIGHTS], id="one file wins over shards"),
        pytest.param([f"checkpoint-10/{WEIGHTS}", f"../{CONFIG}"], [], id="folders belong to something else"),
        pytest.param([f"{WEIGHTS}\n", SHARDS[0] + "\n"], [], id="no name with an end of line"),
    ],
)
def test_the_files_of_an_adapter_are_picked_from_a_repository(names: list[str], expected: list[str]) -> None:
    assert weights_files(names) == tuple(sorted(expected))


def test_the_digest_is_the_sha256_of_sha256sums_lines() -> None:
    config, weights = "1" * 64, "a" * 64
    lines = f"{config}  {CONFIG}\n{weights}  {WEIGHTS}\n"
    expected = hashlib.sha256(lines.encode()).hexdigest()
    assert digest({WEIGHTS: weights, CONFIG: config}) == f"sha256:{expected}"


@given(st.permutations([CONFIG, INDEX, *SHARDS, "README.md"]))
def test_the_digest_does_not_depend_on_order_or_on_other_files(names: list[str]) -> None:
    hashes = {name: hashlib.sha256(name.encode()).hexdigest() for name in names}
    adapters_own = {name: hashes[name] for name in sorted(hashes) if name != "README.md"}
    assert digest(hashes) == digest(adapters_own)


def test_the_digest_takes_nothing_but_a_sha256() -> None:
    with pytest.raises(ValueError, match="sha256"):
        digest({CONFIG: "abc"})


def test_the_engines_name_is_unique_to_the_content() -> None:
    assert engine_name("team-a", "support-bot", f"sha256:0123456789ab{'f' * 52}") == "team-a.support-bot.0123456789ab"
    with pytest.raises(ValueError, match="not a digest"):
        engine_name("team-a", "support-bot", "f" * 64)
