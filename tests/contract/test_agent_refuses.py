"""The agent where something is wrong: each ends in a state, a reason and a message, and harms nobody else."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import hubserver
from lora_operator.protocol.door import State
from support import agents, fake_engine
from support.adapters import TINY_LLAMA, AdapterFiles, make_adapter, other_base, tensor
from support.agents import Pod
from support.checkpoints import read_tensors, values, write_base


@pytest.mark.parametrize(
    ("make", "refusal"),
    [
        pytest.param(lambda: make_adapter(rank=32), ("RankTooHigh", "--max-lora-rank"), id="rank too high"),
        pytest.param(lambda: make_adapter().spoilt(nan=True), ("NotFinite", "NaN"), id="NaN in the weights"),
        pytest.param(lambda: make_adapter(base=other_base()), ("ShapeMismatch", "q_proj"), id="another base's shapes"),
        pytest.param(lambda: make_adapter(config={"use_dora": True}), ("DoRANotSupported", "use_dora"), id="DoRA"),
        pytest.param(lambda: make_adapter(config={"bias": "all"}), ("BiasNotSupported", "bias"), id="bias"),
        pytest.param(lambda: make_adapter().truncated(100), ("TruncatedFile", "whole safetensors"), id="truncated"),
        pytest.param(
            lambda: make_adapter(config={"modules_to_save": ["lm_head"]}),
            ("ModulesToSaveNotSupported", "modules_to_save"),
            id="modules_to_save",
        ),
    ],
)
async def test_an_adapter_that_cannot_be_served_never_reaches_the_engine(
    pod: Pod, hub: hubserver.Hub, engine: fake_engine.Engine, make: Callable[[], AdapterFiles], refusal: tuple[str, str]
) -> None:
    reason, words = refusal
    bad, good = (
        agents.published_entry(hub, make(), name="bad"),
        agents.published_entry(hub, make_adapter(seed=7), name="good"),
    )
    async with pod.run():
        await pod.push(bad, good)
        failed = await pod.reaches(bad.engine_name, State.FAILED)
        assert failed.reason == reason
        assert words in failed.message
        assert len(failed.message) <= 1024
        await pod.reaches(good.engine_name, State.LOADED)
        assert [call["lora_name"] for call in engine.calls("/v1/load_lora_adapter")] == [good.engine_name]
        assert [path.name for path in pod.volume.iterdir() if len(path.name) == 64] == [good.digest[7:]]
        assert not list((pod.volume / ".fetch").iterdir())
        assert await pod.is_ready()


@pytest.mark.parametrize(
    ("settings", "refusal"),
    [
        pytest.param({"engine_device": "cuda"}, None, id="nothing against it"),
        pytest.param({"engine_device": "cuda", "engine_dtype": "auto"}, "ValueTooLarge", id="a base in float16"),
        pytest.param({"lora_target_modules": ("v_proj",)}, "ModuleNotServed", id="a module that is left out"),
    ],
)
async def test_what_is_known_of_the_engine_decides(
    hub: hubserver.Hub, engine: fake_engine.Engine, tmp_path: Path, settings: dict[str, Any], refusal: str | None
) -> None:
    half = TINY_LLAMA.config() | {"torch_dtype": "float16"}
    hub.add_model(agents.BASE, {"config.json": json.dumps(half).encode()})
    big = make_adapter(targets=("q_proj", "o_proj")).spoilt(value=1e5)
    entry = agents.published_entry(hub, big)
    async with agents.running(tmp_path, engine_url=engine.url, hub_url=hub.url, **settings) as pod:
        await pod.push(entry)
        told = await pod.reaches(entry.engine_name, State.FAILED if refusal else State.LOADED)
        assert told.reason == (refusal or "")


@pytest.mark.parametrize(
    ("beside", "factor", "refusal"),
    [
        pytest.param(True, 1, None, id="equal"),
        pytest.param(True, 2, "UnknownTensor", id="others"),
        pytest.param(False, 1, "BaseNotReadable", id="no weights to compare it with"),
    ],
)
async def test_a_copy_of_the_base_s_embedding_is_compared_with_the_base(
    hub: hubserver.Hub, engine: fake_engine.Engine, tmp_path: Path, beside: bool, factor: int, refusal: str | None
) -> None:
    base = write_base(tmp_path / "base", shards=2)
    embedding = values(read_tensors(base)["model.embed_tokens.weight"])
    copy = {"base_model.model.model.embed_tokens.base_layer.weight": tensor(embedding * factor)}
    entry = agents.published_entry(hub, make_adapter(targets=("q_proj", "embed_tokens"), tensors=copy))
    agents.publish_base(hub)
    settings: dict[str, Any] = {"base_model_path": base} if beside else {}
    async with agents.running(tmp_path, engine_url=engine.url, hub_url=hub.url, **settings) as pod:
        await pod.push(entry)
        told = await pod.reaches(entry.engine_name, State.FAILED if refusal else State.LOADED)
        assert told.reason == (refusal or "")
        assert not list((pod.volume / ".fetch").iterdir())


async def test_an_engine_that_says_it_is_a_build_for_the_cpu_is_judged_as_one(
    hub: hubserver.Hub, engine: fake_engine.Engine, tmp_path: Path
) -> None:
    agents.publish_base(hub)
    entry = agents.published_entry(hub, make_adapter(targets=("q_proj", "lm_head")))
    engine.version = "0.32.0+cpu"
    async with agents.running(tmp_path, engine_url=engine.url, hub_url=hub.url, engine_device="cuda") as pod:
        await pod.until(lambda report: report.engine.version == "0.32.0+cpu")
        await pod.push(entry)
        assert (await pod.reaches(entry.engine_name, State.FAILED)).reason == "LmHeadNotSupported"


async def test_an_adapter_that_does_not_fit_is_told_with_the_figures_and_fits_once_there_is_room(
    hub: hubserver.Hub, engine: fake_engine.Engine, tmp_path: Path
) -> None:
    agents.publish_base(hub)
    first, second = (
        agents.published_entry(hub, make_adapter(seed=1), name="first"),
        agents.published_entry(hub, make_adapter(seed=2), name="second"),
    )
    budget = first.size_bytes + second.size_bytes - 1
    async with agents.running(tmp_path, engine_url=engine.url, hub_url=hub.url, adapters_size=budget) as pod:
        await pod.push(first)
        await pod.reaches(first.engine_name, State.LOADED)
        await pod.push(first, second)
        failed = await pod.reaches(second.engine_name, State.FAILED, reason="NoSpace")
        assert str(second.size_bytes) in failed.message
        assert str(budget) in failed.message
        assert "adaptersSize" in failed.message
        await pod.push(second)
        await pod.reaches(second.engine_name, State.LOADED)


@pytest.mark.parametrize("nested", [True, False], ids=["nested errors", "flat errors"])
async def test_a_refusal_of_the_engine_is_told_cut_and_open_again_after_its_restart(
    pod: Pod, hub: hubserver.Hub, engine: fake_engine.Engine, *, nested: bool
) -> None:
    refused = agents.published_entry(hub)
    engine.nested_errors = nested
    engine.fault("/v1/load_lora_adapter", status=500, message="no: " + "x" * 2_000_000, times=-1)
    async with pod.run():
        await pod.push(refused)
        failed = await pod.reaches(refused.engine_name, State.FAILED, reason="LoadRefused")
        assert "500: no: x" in failed.message
        assert len(failed.message) <= 1024
        asked = len(engine.calls("/v1/load_lora_adapter"))
        looks = len(engine.requests)
        await pod.until(lambda _: len(engine.requests) > looks + 10)
        assert len(engine.calls("/v1/load_lora_adapter")) == asked
        await engine.stop()
        await pod.until(lambda report: not report.engine.healthy)
        await engine.start()
        await pod.reaches(refused.engine_name, State.LOADED)


async def test_an_engine_without_runtime_loading_is_told_what_to_set(hub: hubserver.Hub, tmp_path: Path) -> None:
    agents.publish_base(hub)
    wanted = agents.published_entry(hub)
    async with (
        fake_engine.serve(runtime_updating=False) as engine,
        agents.running(tmp_path, engine_url=engine.url, hub_url=hub.url) as pod,
    ):
        await pod.push(wanted)
        failed = await pod.reaches(wanted.engine_name, State.FAILED, reason="RuntimeLoadingDisabled")
        assert "VLLM_ALLOW_RUNTIME_LORA_UPDATING" in failed.message
        assert await pod.is_ready()


async def test_a_slow_probe_is_pending_and_no_reason_to_unload(
    pod: Pod, hub: hubserver.Hub, engine: fake_engine.Engine
) -> None:
    wanted = agents.published_entry(hub)
    engine.fault("/v1/completions", hang=True)
    async with pod.run():
        await pod.push(wanted)
        await pod.reaches(wanted.engine_name, State.PROBE_PENDING)
        looks = len(engine.requests)
        await pod.until(lambda _: len(engine.requests) > looks + 10)
        assert engine.adapters.keys() == {wanted.engine_name}
        assert not engine.calls("/v1/unload_lora_adapter")
        engine.clear_faults()
        await pod.reaches(wanted.engine_name, State.LOADED)


async def test_the_door_stays_open_while_the_engine_hangs(
    pod: Pod, hub: hubserver.Hub, engine: fake_engine.Engine
) -> None:
    first, second = (
        agents.published_entry(hub, make_adapter(seed=1), name="first"),
        agents.published_entry(hub, make_adapter(seed=2), name="second"),
    )
    engine.fault("/v1/load_lora_adapter", hang=True)
    async with pod.run():
        await pod.push(first)
        await pod.until(lambda _: engine.in_flight.get("/v1/load_lora_adapter"))
        await pod.push(first, second)
        report = await pod.until(lambda report: agents.of(report, second.engine_name))
        assert set(report.shards.values()) == {2}
        engine.clear_faults()
        await pod.reaches(first.engine_name, State.LOADED)
        await pod.reaches(second.engine_name, State.LOADED)


async def test_a_name_that_the_engine_has_from_elsewhere_is_not_taken_over(
    pod: Pod, hub: hubserver.Hub, engine: fake_engine.Engine, tmp_path: Path
) -> None:
    wanted = agents.published_entry(hub)
    foreign = str(make_adapter(seed=3).write(tmp_path / "foreign"))
    engine.adapters[wanted.engine_name] = foreign
    async with pod.run():
        await pod.push(wanted)
        failed = await pod.reaches(wanted.engine_name, State.FAILED, reason="EngineNameTaken")
        assert foreign in failed.message
        await pod.push()
        await pod.gone(wanted.engine_name)
        assert engine.adapters == {wanted.engine_name: foreign}


async def test_nothing_is_loaded_that_cannot_be_compared_with_the_base(
    hub: hubserver.Hub, engine: fake_engine.Engine, tmp_path: Path
) -> None:
    wanted = agents.published_entry(hub)
    async with agents.running(tmp_path, engine_url=engine.url, hub_url=hub.url) as pod:
        await pod.push(wanted)
        pending = await pod.reaches(wanted.engine_name, State.PENDING, reason="BaseNotReadable")
        assert agents.BASE in pending.message
        assert not engine.calls("/v1/load_lora_adapter")
        assert (await pod.call("GET", "/v1/base"))[0] == 404


@pytest.mark.parametrize(
    ("settings", "field"),
    [
        pytest.param({"base_model": "s3://bucket/llama"}, "spec.baseModel", id="a name that is none on the Hub"),
        pytest.param({"hub_token": "hf_\udcff"}, "tokenSecretRef", id="a token that no header can carry"),
        pytest.param({"base_model_path": Path("/" + "x" * 5000)}, "spec.baseModel", id="what nobody thought of"),
    ],
)
async def test_a_base_that_can_never_be_read_is_told_and_not_tried_again_at_once(
    hub: hubserver.Hub, engine: fake_engine.Engine, tmp_path: Path, settings: dict[str, Any], field: str
) -> None:
    wanted = agents.published_entry(hub)
    async with agents.running(tmp_path, engine_url=engine.url, hub_url=hub.url, poll_seconds=600, **settings) as pod:
        await pod.push(wanted)
        pending = await pod.until(lambda report: field in str(report.entries))
        assert pending.entries[0].reason == "BaseNotReadable"
        looks = len(engine.requests)
        # An agent that tries again at once looks at the engine each time.
        await pod.report(heard=await pod.report(), wait=2)
        assert len(engine.requests) < looks + 10


async def test_a_tensor_of_a_layer_that_the_base_lacks_is_refused(pod: Pod, hub: hubserver.Hub) -> None:
    extra = {
        f"base_model.model.model.layers.9.self_attn.q_proj.lora_{half}.weight": tensor(np.ones(shape))
        for half, shape in {"A": (8, 128), "B": (128, 8)}.items()
    }
    wanted = agents.published_entry(hub, make_adapter(tensors=extra))
    async with pod.run():
        await pod.push(wanted)
        assert (await pod.reaches(wanted.engine_name, State.FAILED)).reason == "LayerOutOfRange"


async def test_many_agents_run_in_one_process(hub: hubserver.Hub, engine: fake_engine.Engine, tmp_path: Path) -> None:
    agents.publish_base(hub)
    wanted = agents.published_entry(hub)

    async def one(number: int) -> None:
        async with (
            fake_engine.serve() as its_engine,
            agents.running(tmp_path / str(number), engine_url=its_engine.url, hub_url=hub.url, poll_seconds=2) as pod,
        ):
            await pod.push(wanted)
            await pod.reaches(wanted.engine_name, State.LOADED)

    await asyncio.gather(*(one(number) for number in range(20)))
