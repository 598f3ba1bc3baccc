"""A real agent in this process, on a folder of its own: what its pod would mount, and the operator's side of its door.

async with agents.running(tmp_path, engine=engine, hub_url=hub.url) as agent:
    await agent.push(entry)
    await agent.reaches(entry.engine_name, State.LOADED)
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp

import hubserver
import lora_agent
from lora_operator import adapter
from lora_operator.protocol import door, manifest
from lora_operator.protocol.door import EntryReport, Report, State
from lora_operator.protocol.manifest import Entry, File, HubSource, Owner, Shard
from support.adapters import TINY_LLAMA, AdapterFiles, make_adapter

TOKEN = "the-door-s-token"
BASE = "tiny/llama"
DEADLINE_SECONDS = 120.0


def publish(hub: hubserver.Hub, repo: str, files: AdapterFiles, *, private: bool = False) -> HubSource:
    """Put an adapter into a repository of the Hub and return where it lies."""
    return HubSource(repo=repo, commit=hub.add_model(repo, files.files, private=private))


def entry_for(files: AdapterFiles, source: HubSource, *, name: str = "support", namespace: str = "team-a") -> Entry:
    """Return the manifest's entry for an adapter, as the operator pins it."""
    digest = adapter.digest(files.sha256)
    return Entry(
        engine_name=adapter.engine_name(namespace, name, digest),
        digest=digest,
        hub=source,
        files=tuple(
            File(path=path, sha256=files.sha256[path], size=len(files.files[path]))
            for path in adapter.weights_files(files.files)
        ),
        owner=Owner(namespace=namespace, name=name, uid="uid", generation=1),
        resolved="2026-01-01T00:00:00Z",
        rank=8,
        lora_alpha="16",
        target_modules=("q_proj", "v_proj"),
    )


def published_entry(hub: hubserver.Hub, files: AdapterFiles | None = None, *, name: str = "support") -> Entry:
    """Publish an adapter (a usual one by default) and return the manifest's entry for it."""
    files = files or make_adapter()
    return entry_for(files, publish(hub, f"acme/{name}", files), name=name)


def publish_base(hub: hubserver.Hub) -> None:
    """Put the config of the tiny base onto the Hub."""
    hub.add_model(BASE, {"config.json": json.dumps(TINY_LLAMA.config()).encode()})


@dataclass(kw_only=True)
class Pod:
    """The folders that a pod gives its agent, and an agent on them."""

    root: Path
    settings: lora_agent.Settings
    port: int = 0
    revision: int = 0
    agent: lora_agent.Agent | None = None
    _session: aiohttp.ClientSession | None = field(default=None, repr=False)

    @property
    def volume(self) -> Path:
        """The adapters volume."""
        return self.settings.adapters_path

    def mount_secret(self, values: Mapping[str, str] | None = None) -> None:
        """Bring the engine's Secret, as kubelet does."""
        for key, value in {door.TOKEN_KEY: TOKEN, **(values or {})}.items():
            (self.settings.secret_path / key).write_text(value)

    def mount(self, shard: Shard) -> None:
        """Bring a shard into the projected volume, as kubelet does: a swap."""
        path = self.settings.manifest_path / f"{shard.index}.json"
        new = path.with_suffix(".new")
        new.write_text(shard.to_json())
        new.replace(path)

    def shards(self, *entries: Entry, revision: int | None = None) -> list[Shard]:
        """Return the eight shards of a manifest with these entries, of a new revision."""
        self.revision = self.revision + 1 if revision is None else revision
        return [
            Shard(
                index=index,
                revision=self.revision,
                entries=tuple(entry for entry in entries if manifest.shard_of(entry.engine_name) == index),
            )
            for index in range(manifest.SHARDS)
        ]

    async def push(self, *entries: Entry, revision: int | None = None) -> None:
        """Push a whole manifest, as the operator does."""
        for shard in self.shards(*entries, revision=revision):
            status, text = await self.call("PUT", f"/v1/shards/{shard.index}", body=shard.to_json())
            assert status == 204, text

    async def call(self, method: str, path: str, *, body: str | None = None, token: str = TOKEN) -> tuple[int, str]:
        """Knock at the door."""
        assert self._session is not None
        async with self._session.request(
            method,
            f"https://127.0.0.1:{self.port}{path}",
            data=body,
            headers={"Authorization": f"Bearer {token}"},
            ssl=False,
            timeout=aiohttp.ClientTimeout(total=DEADLINE_SECONDS),
        ) as answer:
            return answer.status, await answer.text()

    async def report(self, *, heard: Report | None = None, wait: float = 0) -> Report:
        """Return the agent's report, waiting for one newer than the one heard."""
        known = f"instance={heard.instance}&after={heard.sequence}&" if heard is not None else ""
        status, text = await self.call("GET", f"/v1/report?{known}wait={wait}")
        assert status == 200, text
        return Report.model_validate_json(text)

    async def until(self, holds: Callable[[Report], Any]) -> Report:
        """Return the first report for which something holds."""
        report = await self.report()
        async with asyncio.timeout(DEADLINE_SECONDS):
            while not holds(report):
                report = await self.report(heard=report, wait=1)
        return report

    async def reaches(self, name: str, state: State, *, reason: str | None = None) -> EntryReport:
        """Return the entry's report once it is in this state, and for this reason where one is given."""

        def there(report: Report) -> bool:
            entry = of(report, name)
            return entry is not None and entry.state is state and reason in (None, entry.reason)

        report = await self.until(there)
        entry = of(report, name)
        assert entry is not None
        return entry

    async def gone(self, name: str) -> None:
        """Wait until the agent holds nothing under this name."""
        await self.until(lambda report: of(report, name) is None)

    async def is_ready(self) -> bool:
        """Ask what kubelet asks."""
        status, _ = await self.call("GET", "/readyz", token="")
        return status == 200

    @contextlib.asynccontextmanager
    async def run(self) -> AsyncIterator[Pod]:
        """Run an agent on this pod's folders; afterwards another may."""
        async with (
            aiohttp.ClientSession() as self._session,
            lora_agent.serve(self.settings, host="127.0.0.1", port=0) as self.agent,
        ):
            self.port = self.agent.port
            yield self


async def eventually(holds: Callable[[], Awaitable[bool]]) -> None:
    """Wait until something holds that nobody tells us of."""
    async with asyncio.timeout(DEADLINE_SECONDS):
        while not await holds():  # noqa: ASYNC110 - nothing in this process could set an event
            await asyncio.sleep(0.05)


def of(report: Report, name: str) -> EntryReport | None:
    """Return what a report says of one entry."""
    return next((entry for entry in report.entries if entry.engine_name == name), None)


def pod(root: Path, *, engine_url: str, hub_url: str, **settings: Any) -> Pod:
    """Make a pod's folders; `settings` are the agent's that differ."""
    places = {name: root / name for name in ("adapters", "manifest", "secret")}
    for place in places.values():
        place.mkdir(parents=True, exist_ok=True)
    given: dict[str, Any] = {
        "base_model": BASE,
        "adapters_size": 10_000_000,
        "pod_uid": "pod-1",
        "max_lora_rank": 16,
        "engine_url": engine_url,
        "engine_device": "cpu",
        "hub_endpoint": hub_url,
        "poll_seconds": 0.1,
        "drain_seconds": 0,
        **{f"{name}_path": place for name, place in places.items()},
    }
    return Pod(root=root, settings=lora_agent.Settings(**{**given, **settings}))


@contextlib.asynccontextmanager
async def running(root: Path, *, engine_url: str, hub_url: str, **settings: Any) -> AsyncIterator[Pod]:
    """Make a pod, mount its Secret and run its agent."""
    made = pod(root, engine_url=engine_url, hub_url=hub_url, **settings)
    made.mount_secret()
    async with made.run():
        yield made
