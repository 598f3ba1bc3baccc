"""Memory by the formula of docs/trainer.md; tokens as they count; what a token's owner may do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from lora_trainer import machine, memory, permission, tokens
from lora_trainer.by_hand import TrainSpec
from lora_trainer.outline import Outline
from lora_trainer.positions import Positions
from lora_trainer.result import Refusal

GIB = 1 << 30
LLAMA_8B = Outline(
    model_type="llama",
    parameters=8_030_261_248,
    linear_parameters=6_979_321_856,
    adapter_parameters=41_943_040,
    hidden=4096,
    inner=14336,
    layers=32,
    vocabulary=128256,
    positions=Positions(limit=131072, learnt=False),
)


def estimate(
    *, dtype: str = "bfloat16", longest: int = 4096, outline: Outline = LLAMA_8B, **parts: Any
) -> memory.Estimate:
    raw = {
        "baseModel": {"name": "acme/tiny"},
        "dataset": {"source": {"path": "rows.jsonl"}, "format": "Text"},
        **parts,
    }
    wanted = TrainSpec.model_validate(raw)
    return memory.estimate(wanted, outline, dtype=dtype, longest=longest, accelerator=True)


def test_weights_are_parameters_times_their_size() -> None:
    assert estimate().weights == LLAMA_8B.parameters * 2
    assert estimate(dtype="float32").weights == LLAMA_8B.parameters * 4


@pytest.mark.parametrize(("double", "bits"), [(False, 4.5), (True, 4.127)])
def test_four_bits_and_their_scales(double: bool, bits: float) -> None:
    found = estimate(quantization={"bnb4bitUseDoubleQuant": double})
    rest = (LLAMA_8B.parameters - LLAMA_8B.linear_parameters) * 2
    assert (found.weights - rest) * 8 / LLAMA_8B.linear_parameters == pytest.approx(bits, abs=0.001)


@pytest.mark.parametrize(("optim", "size"), [("AdamwTorch", 8), ("PagedAdamw8bit", 2), ("Sgd", 0)])
def test_the_optimiser_keeps_its_states_for_the_adapter_alone(optim: str, size: int) -> None:
    found = estimate(training={"optim": optim})
    assert found.optimizer == LLAMA_8B.adapter_parameters * size
    assert found.adapter == LLAMA_8B.adapter_parameters * 8


def test_activations_grow_with_the_batch_and_the_rows_that_there_are() -> None:
    one = estimate(training={"perDeviceTrainBatchSize": 1, "maxLength": 2048}, longest=512)
    four = estimate(training={"perDeviceTrainBatchSize": 4, "maxLength": 2048}, longest=512)
    assert four.activations == pytest.approx(4 * one.activations, rel=0.05)
    assert estimate(training={"perDeviceTrainBatchSize": 1, "maxLength": 512}).activations == one.activations


def test_checkpointing_saves_and_packing_fills_every_row() -> None:
    small = {"perDeviceTrainBatchSize": 1, "maxLength": 2048}
    plain = estimate(training=small, longest=512)
    assert estimate(training=small | {"gradientCheckpointing": False}, longest=512).activations > 5 * plain.activations
    assert estimate(training=small | {"packing": True}, longest=512).activations > 3 * plain.activations


def test_a_llama_of_8b_is_where_peers_measure_it() -> None:
    # LLaMA-Factory's table: 16 GB for LoRA in 16 bits and 6 GB in 4 bits, at small batches.
    small = {"perDeviceTrainBatchSize": 1, "maxLength": 512}
    assert 15 * GIB < estimate(training=small).total < 19 * GIB
    assert 5 * GIB < estimate(training=small, quantization={}).total < 8 * GIB


def test_dpo_looks_at_two_answers_at_once() -> None:
    dataset = {"source": {"path": "rows.jsonl"}, "format": "Preference"}
    pairs = estimate(method="DPO", dataset=dataset, longest=512, training={"perDeviceTrainBatchSize": 4})
    assert pairs.activations == estimate(longest=512, training={"perDeviceTrainBatchSize": 8}).activations


def room(*, start: int = 0, **parts: Any) -> int:
    raw = {"baseModel": {"name": "acme/tiny"}, "dataset": {"source": {"path": "rows.jsonl"}, "format": "Text"}}
    return memory.room(TrainSpec.model_validate(raw | parts), LLAMA_8B, start=start, tokenizer=9_000_000)


ADAPTER = LLAMA_8B.adapter_parameters * 4
CHECKPOINT = 3 * ADAPTER + 9_000_000
"""With both states of AdamW, and the tokenizer."""


@pytest.mark.parametrize(
    ("parts", "size"),
    [
        ({}, ADAPTER),
        ({"lora": {"initLoraWeights": "Pissa"}}, 3 * ADAPTER),
        ({"checkpoint": {"volume": {}, "keep": 2}}, ADAPTER + 3 * CHECKPOINT),
        ({"evaluation": {"fraction": "0.1", "schedule": "Epoch", "keep": "Best"}}, ADAPTER + 3 * CHECKPOINT),
        (
            {"quantization": {}, "training": {"optim": "Sgd"}, "checkpoint": {"volume": {}, "keep": 1}},
            0.5 * ADAPTER * 3,
        ),
    ],
)
def test_room_is_for_the_adapter_and_one_checkpoint_more_than_are_kept(parts: dict[str, Any], size: float) -> None:
    assert room(**parts) == pytest.approx(size, rel=0.1)


def test_an_adapter_to_go_on_from_says_its_size_itself() -> None:
    assert room(start=1000, lora={"initFrom": {"path": "first"}}) == 1000


def test_a_folder_without_room_is_refused() -> None:
    assert memory.check_room(1 << 20, free=1 << 20).startswith("about 1 MiB are needed for checkpoints and the adapter")
    with pytest.raises(
        Refusal, match=r"^--output: about 2.0 GiB are needed .*, and 1 MiB are free; lower checkpoint.keep"
    ):
        memory.check_room(2 << 30, free=1 << 20)


def test_free_space_is_asked_of_the_folder_that_will_hold_the_output(tmp_path: Path) -> None:
    assert machine.free(tmp_path / "not" / "yet" / "there") == pytest.approx(machine.free(tmp_path), rel=0.1)


def test_an_amount_is_read_by_people() -> None:
    assert str(estimate(longest=512)).startswith("1")
    assert memory.gib(3 << 20) == "3 MiB"


@pytest.mark.parametrize(
    ("meminfo", "cgroup", "size"),
    [
        ("MemTotal:       16384 kB\nMemFree: 1 kB\n", "max\n", 16384 * 1024),
        ("MemTotal:       16384 kB\n", "1048576\n", 1 << 20),
        ("MemTotal:       16384 kB\n", "", 16384 * 1024),
        ("", "", 0),
    ],
)
def test_the_smaller_of_machine_and_container_counts(meminfo: str, cgroup: str, size: int) -> None:
    assert machine.limit(meminfo, cgroup) == size


def test_tokens_are_counted_after_the_cut_and_lost_rows_are_left_out() -> None:
    found = tokens.count(iter([[0, 0, 1, 1], [0, 0, 0, 0, 0, 1], [0, 1, 1, 1, 1, 1]]), 4)
    assert (found.rows, found.total, found.trained, found.cut, found.lost, found.longest) == (3, 8, 5, 2, 1, 6)
    assert found.metrics() == {"trained_token_share": "0.625", "cut_row_share": "0.6667"}


ANA = {"name": "ana", "orgs": [{"name": "acme", "roleInOrg": "write"}, {"name": "corp", "roleInOrg": "read"}]}


@pytest.mark.parametrize(
    ("repo", "who", "fault"),
    [
        ("ana/bot", ANA, None),
        ("bot", ANA, None),
        ("acme/bot", ANA, None),
        ("corp/bot", ANA, "ana's, who may only read in corp"),
        ("else/bot", ANA, "ana's, who is not in else"),
        ("ana/bot", {**ANA, "auth": {"accessToken": {"role": "read"}}}, "may only read; it is ana's"),
        ("ana/bot", {**ANA, "auth": {"accessToken": {"role": "fineGrained"}}}, None),
    ],
)
def test_who_could_create_a_repository(repo: str, who: dict[str, Any], fault: str | None) -> None:
    found = permission.creates(repo, who)
    assert found is None if fault is None else found is not None and fault in found
