"""The agent against a fake engine and a real Hub protocol: an adapter comes, stays, comes back, and goes."""

from __future__ import annotations

import asyncio
import errno
import stat
import tempfile
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest

import hubserver
from lora_agent import apply
from lora_operator.protocol.door import State
from lora_operator.protocol.manifest import Entry
from support import agents, fake_engine
from support.adapters import AdapterFiles, make_adapter
from support.agents import Pod


@dataclass(frozen=True, kw_only=True)
class World:
    """One engine, one Hub with the base on it."""

    engine: fake_engine.Engine
    hub: hubserver.Hub
    tmp: Path

    def entry(self, files: AdapterFiles | None = None, *, name: str = "support") -> Entry:
        """Publish an adapter and return its entry."""
        files = files or make_adapter()
        return agents.entry_for(files, agents.publish(self.hub, f"acme/{name}", files), name=name)

    def pod(self, **settings: object) -> Pod:
        """Return a pod beside the engine."""
        pod = agents.pod(self.tmp, engine_url=self.engine.url, hub_url=self.hub.url, **settings)
        pod.mount_secret()
        return pod


@pytest.fixture
async def world(hub: hubserver.Hub, tmp_path: Path) -> AsyncIterator[World]:
    agents.publish_base(hub)
    async with fake_engine.serve() as engine:
        yield World(engine=engine, hub=hub, tmp=tmp_path)


async def test_an_adapter_is_fetched_verified_loaded_and_answers(world: World) -> None:
    entry = world.entry()
    async with world.pod().run() as pod:
        await pod.push(entry)
        await pod.reaches(entry.engine_name, State.LOADED)
        path = pod.volume / entry.digest.removeprefix("sha256:")
        assert world.engine.adapters == {entry.engine_name: str(path)}
        assert [call["model"] for call in world.engine.calls("/v1/completions")] == [entry.engine_name]
        assert stat.S_IMODE(path.stat().st_mode) == 0o755
        assert {stat.S_IMODE(file.stat().st_mode) for file in path.iterdir()} == {0o644}
        assert {file.name for file in path.iterdir()} == {"adapter_config.json", "adapter_model.safetensors"}
        assert await pod.is_ready()
        # Nothing but the files is asked of the Hub, each once.
        asked = [record.path for record in world.hub.requests if "/_lfs/" not in record.path]
        assert sorted(path.rpartition("/")[2] for path in asked) == [
            "adapter_config.json",
            "adapter_model.safetensors",
            "config.json",
        ]


async def test_a_restarted_engine_is_refilled_from_disk_with_the_hub_away(world: World) -> None:
    entries = [world.entry(make_adapter(seed=seed), name=f"a{seed}") for seed in range(3)]
    async with world.pod().run() as pod:
        await pod.push(*entries)
        for entry in entries:
            await pod.reaches(entry.engine_name, State.LOADED)
        world.hub.fault(".*", status=503, times=-1)
        await world.engine.restart()
        await pod.until(lambda _: len(world.engine.calls("/v1/load_lora_adapter")) == 6)
        for entry in entries:
            await pod.reaches(entry.engine_name, State.LOADED)
        assert world.engine.adapters.keys() == {entry.engine_name for entry in entries}


async def test_an_entry_that_is_gone_is_unloaded_before_its_files_are_removed(world: World) -> None:
    entry = world.entry()
    async with world.pod().run() as pod:
        await pod.push(entry)
        await pod.reaches(entry.engine_name, State.LOADED)
        path = pod.volume / entry.digest.removeprefix("sha256:")
        world.engine.fault("/v1/unload_lora_adapter", status=500, times=3)
        await pod.push()
        await pod.gone(entry.engine_name)
        assert len(world.engine.calls("/v1/unload_lora_adapter")) == 4
        assert world.engine.unloaded == [(entry.engine_name, True)]
        assert not world.engine.adapters
        assert not path.exists()


async def test_files_stay_while_a_request_still_runs_on_the_adapter(world: World) -> None:
    entry = world.entry()
    async with world.pod().run() as pod:
        await pod.push(entry)
        await pod.reaches(entry.engine_name, State.LOADED)
        path = pod.volume / entry.digest.removeprefix("sha256:")
        world.engine.running[entry.engine_name] = 1
        await pod.push()
        await pod.until(lambda _: len([1 for _, asked, _ in world.engine.requests if asked == "/metrics"]) >= 3)
        assert not world.engine.adapters
        assert path.is_dir()
        world.engine.running[entry.engine_name] = 0
        await pod.gone(entry.engine_name)
        assert not path.exists()


async def test_files_outlive_the_unload_by_the_time_that_a_late_request_needs(world: World) -> None:
    entry = world.entry()
    async with world.pod(drain_seconds=1).run() as pod:
        await pod.push(entry)
        await pod.reaches(entry.engine_name, State.LOADED)
        path = pod.volume / entry.digest.removeprefix("sha256:")
        await pod.push()
        await pod.until(lambda _: not world.engine.adapters)
        assert path.is_dir()
        assert agents.of(await pod.report(), entry.engine_name) is not None
        await pod.gone(entry.engine_name)
        assert not path.exists()


async def test_files_stay_where_nothing_tells_that_no_request_needs_them_until_the_engine_restarts(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(apply, "BLIND_GRACE_SECONDS", 0.0)
    entry = world.entry()
    async with world.pod().run() as pod:
        await pod.push(entry)
        await pod.reaches(entry.engine_name, State.LOADED)
        path = pod.volume / entry.digest.removeprefix("sha256:")
        world.engine.fault("/metrics", status=404, times=-1)
        await pod.push()
        await pod.gone(entry.engine_name)
        assert not world.engine.adapters
        assert path.is_dir(), "a request of before the unload may still read them"

        await pod.push(entry)
        await pod.reaches(entry.engine_name, State.LOADED)
        await pod.push()
        await pod.gone(entry.engine_name)
        assert path.is_dir()

        await world.engine.stop()
        world.engine.fault("/metrics", status=404, times=-1)
        await pod.until(lambda report: not report.engine.healthy)
        await world.engine.start()
        await pod.until(lambda _: not path.exists())


async def test_a_new_version_is_loaded_beside_the_old(world: World) -> None:
    old, new = world.entry(make_adapter(seed=1)), world.entry(make_adapter(seed=2))
    async with world.pod().run() as pod:
        await pod.push(old)
        await pod.reaches(old.engine_name, State.LOADED)
        await pod.push(old, new)
        await pod.reaches(new.engine_name, State.LOADED)
        assert world.engine.adapters.keys() == {old.engine_name, new.engine_name}
        await pod.push(new)
        await pod.gone(old.engine_name)
        assert world.engine.adapters.keys() == {new.engine_name}


async def test_two_adapters_of_one_content_share_the_files_until_the_last_goes(world: World) -> None:
    first, second = world.entry(name="first"), world.entry(name="second")
    async with world.pod().run() as pod:
        await pod.push(first, second)
        await pod.reaches(first.engine_name, State.LOADED)
        await pod.reaches(second.engine_name, State.LOADED)
        path = pod.volume / first.digest.removeprefix("sha256:")
        await pod.push(second)
        await pod.gone(first.engine_name)
        assert path.is_dir()
        await pod.push()
        await pod.gone(second.engine_name)
        assert not path.exists()


async def test_what_the_agent_did_not_load_is_left_alone(world: World, tmp_path: Path) -> None:
    world.engine.adapters["by-hand"] = str(make_adapter(seed=9).write(tmp_path / "elsewhere"))
    entry = world.entry()
    async with world.pod().run() as pod:
        await pod.push(entry)
        await pod.reaches(entry.engine_name, State.LOADED)
        await pod.push()
        await pod.gone(entry.engine_name)
        assert world.engine.adapters.keys() == {"by-hand"}


async def test_an_agent_that_lost_its_memory_still_unloads_what_lies_in_its_volume(world: World) -> None:
    entry = world.entry()
    pod = world.pod()
    async with pod.run():
        await pod.push(entry)
        await pod.reaches(entry.engine_name, State.LOADED)
    for file in (pod.volume / ".state").iterdir():
        file.unlink()
    async with pod.run():
        looks = len(world.engine.requests)
        await pod.until(lambda _: len(world.engine.requests) > looks + 10)
        # Unknown is not absent.
        assert world.engine.adapters.keys() == {entry.engine_name}
        await pod.push()
        await pod.gone(entry.engine_name)
        assert not world.engine.adapters
        assert not (pod.volume / entry.digest.removeprefix("sha256:")).exists()


async def test_a_restarted_agent_tells_at_once_what_the_engine_has_and_loads_nothing_again(world: World) -> None:
    entry = world.entry()
    pod = world.pod()
    async with pod.run():
        await pod.push(entry)
        before = await pod.until(lambda report: report.ready and report.entries[0].state is State.LOADED)
    world.engine.requests.clear()
    world.hub.forget_requests()
    async with pod.run():
        report = await pod.report(heard=before, wait=50)
        assert report.ready
        assert [one.state for one in report.entries] == [State.LOADED]
        assert report.instance != before.instance
        await pod.until(lambda report: report.base_known)
        assert not world.engine.calls("/v1/load_lora_adapter")
        assert not [record for record in world.hub.requests if "safetensors" in record.path]


async def test_a_restarted_agent_opens_its_door_before_it_loads_anything(world: World) -> None:
    entry = world.entry()
    pod = world.pod()
    async with pod.run():
        await pod.push(entry)
        await pod.reaches(entry.engine_name, State.LOADED)
    await world.engine.restart()
    world.engine.requests.clear()
    world.engine.fault("/v1/load_lora_adapter", hang=True)
    async with pod.run():
        assert not world.engine.calls("/v1/load_lora_adapter")
        world.engine.clear_faults()
        await pod.reaches(entry.engine_name, State.LOADED)


async def test_on_a_full_disk_an_agent_stays_ready_across_its_restart_and_frees_what_is_not_wanted(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, kept = world.entry(make_adapter(seed=1), name="old"), world.entry(make_adapter(seed=2), name="kept")
    pod = world.pod()
    for shard in pod.shards(old, kept):
        pod.mount(shard)
    async with pod.run():
        await pod.until(lambda report: report.ready)
        await pod.reaches(old.engine_name, State.LOADED)
        await pod.reaches(kept.engine_name, State.LOADED)

        def no_space(*_: object, **__: object) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

        for make in ("mkstemp", "mkdtemp"):
            monkeypatch.setattr(tempfile, make, no_space)
    async with pod.run():
        assert await pod.is_ready()
        await pod.push(kept)
        await pod.gone(old.engine_name)
        assert not (pod.volume / old.digest.removeprefix("sha256:")).exists()
        assert world.engine.adapters.keys() == {kept.engine_name}
        assert await pod.is_ready()


async def test_a_mount_that_lags_undoes_no_push_also_across_a_restart(world: World) -> None:
    old, new = world.entry(make_adapter(seed=1)), world.entry(make_adapter(seed=2))
    pod = world.pod()
    for shard in pod.shards(old, revision=1):
        pod.mount(shard)
    async with pod.run():
        await pod.reaches(old.engine_name, State.LOADED)
        await pod.push(new, revision=2)
        await pod.reaches(new.engine_name, State.LOADED)
        await pod.gone(old.engine_name)
    async with pod.run():
        report = await pod.report()
        assert set(report.shards.values()) == {2}
        assert [one.engine_name for one in report.entries] == [new.engine_name]
        for shard in pod.shards(old, new, revision=3):
            pod.mount(shard)
        await pod.reaches(old.engine_name, State.LOADED)


async def test_a_shard_that_vanishes_or_cannot_be_read_unloads_nothing(world: World) -> None:
    entry = world.entry()
    pod = world.pod()
    for shard in pod.shards(entry):
        pod.mount(shard)
    async with pod.run():
        await pod.reaches(entry.engine_name, State.LOADED)
        for file in pod.settings.manifest_path.iterdir():
            file.write_text('{"version": 99, "index": 0, "revision": 100}')
        looks = len(world.engine.requests)
        await pod.until(lambda _: len(world.engine.requests) > looks + 10)
        for file in pod.settings.manifest_path.iterdir():
            file.unlink()
        looks = len(world.engine.requests)
        await pod.until(lambda _: len(world.engine.requests) > looks + 10)
        assert world.engine.adapters.keys() == {entry.engine_name}


async def test_an_adapter_unloaded_by_hand_comes_back(world: World) -> None:
    entry = world.entry()
    async with world.pod().run() as pod:
        await pod.push(entry)
        await pod.reaches(entry.engine_name, State.LOADED)
        world.engine.adapters.clear()
        await pod.until(lambda report: report.engine.loads_since_start == 1 and len(world.engine.adapters) == 1)
        await pod.reaches(entry.engine_name, State.LOADED)


async def test_loads_never_overlap(world: World) -> None:
    entries = [world.entry(make_adapter(seed=seed), name=f"a{seed}") for seed in range(4)]
    world.engine.fault("/v1/load_lora_adapter", delay_seconds=0.05, times=-1)
    async with world.pod().run() as pod:
        most = 0

        async def watch() -> None:
            nonlocal most
            while True:
                loading = world.engine.in_flight.get("/v1/load_lora_adapter", 0)
                most = max(most, loading)
                await asyncio.sleep(0.005)

        watching = asyncio.create_task(watch())
        await pod.push(*entries)
        for entry in entries:
            await pod.reaches(entry.engine_name, State.LOADED)
        watching.cancel()
        assert most == 1
