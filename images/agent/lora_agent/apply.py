"""Carries out what `plan` decides: one load or unload at a time, downloads and probes beside it.

Whatever goes wrong with an entry becomes its setback; nothing that happens to one entry stops another, but for an
engine that does not answer: then the rest of the step waits for the next look.
"""

from __future__ import annotations

import asyncio
import logging
import random
import shutil
import time
from collections.abc import Awaitable, Callable, Iterable
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from functools import partial
from typing import Final

from lora_agent import backoff
from lora_agent import life as lives
from lora_agent.backoff import Ends, Setback, Step, Trouble
from lora_agent.base import Known, read_base
from lora_agent.disk import Disk
from lora_agent.engine import Engine, Health, NoAnswer, Refusal, View
from lora_agent.fetch import NO_SPACE, Fetcher
from lora_agent.life import Life
from lora_agent.plan import Action, Fetch, Forget, Load, Probe, Remove, Unload
from lora_agent.refusals import of_load, of_probe, silence
from lora_agent.secret import Secret
from lora_agent.settings import Settings
from lora_operator.protocol.manifest import Entry

_log = logging.getLogger(__name__)
BLIND_GRACE_SECONDS: Final = 60.0
"""After so long, an unloaded adapter counts as gone where the engine doesn't tell whether requests still run on it. Its
files stay until the engine restarts: a request has no longest time."""
_AUTHORISATION: Final = frozenset({"HubUnauthorized", "RepositoryNotFound", "TokenMalformed"})


@dataclass(slots=True, kw_only=True)
class Work:
    """What is known of engine and entries, and what is under way. The loop reads it, the carrier changes it."""

    life: Life
    hexes: dict[str, str]
    view: View = field(default_factory=lambda: View(health=Health.SILENT, problem="the engine was not asked yet"))
    engine_version: str | None = None
    setbacks: dict[str, Setback] = field(default_factory=dict)
    fetching: dict[str, asyncio.Task[None]] = field(default_factory=dict)
    probing: dict[str, asyncio.Task[None]] = field(default_factory=dict)
    base: Known | None = None
    base_problem: str = "it is being read"

    def forget_setbacks(self, *steps: Step) -> None:
        """Let these steps be tried again at once."""
        for name in [name for name, it in self.setbacks.items() if it.step in steps]:
            del self.setbacks[name]

    def forget_outdated(self, disk: Disk) -> None:
        """Drop setbacks of steps that turned out well after all: a load that answered late, files that are there."""
        for name, it in list(self.setbacks.items()):
            digest_hex = self.hexes[name]
            listed = self.view.adapters.get(name) == str(disk.path(digest_hex))
            fetched = digest_hex in disk.published
            if (it.step is Step.LOAD and listed) or (it.step is Step.FETCH and fetched):
                del self.setbacks[name]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Unlisted:
    """Since when a name is not listed, and by which engine: one that started later answers no request of before."""

    since: float
    engine: float | None


class Carrier:
    """Does things, for one engine."""

    def __init__(  # noqa: PLR0913 - everything that has effects meets here
        self,
        settings: Settings,
        work: Work,
        *,
        engine: Engine,
        fetcher: Fetcher,
        secret: Secret,
        wake: Callable[[], None],
    ) -> None:
        self._settings = settings
        self._work = work
        self._engine = engine
        self._fetcher = fetcher
        self._secret = secret
        self._disk = fetcher.disk
        self._wake = wake
        self._unlisted: dict[str, _Unlisted] = {}
        self.lingering: frozenset[str] = frozenset()
        """Names that are gone but for their files, which a request may still need."""
        self._blind_until = 0.0
        self._base_task: asyncio.Task[None] | None = None
        self._base_setback: Setback | None = None

    async def carry_out(self, actions: Iterable[Action], wanted: dict[str, Entry]) -> None:
        """Do all of it, in order; stops where the engine stops answering."""
        self._unlisted = {name: it for name, it in self._unlisted.items() if name not in wanted}
        self.lingering -= wanted.keys()
        for action in actions:
            try:
                match action:
                    case Fetch(name=name):
                        entry = wanted[name]
                        self._start(self._work.fetching, self._work.hexes[name], partial(self._fetch, name, entry))
                    case Load(name=name):
                        await self._load(name)
                    case Probe(name=name):
                        self._start(self._work.probing, name, partial(self._probe, name))
                    case Unload(name=name):
                        await self._unload(name)
                    case Remove(name=name, digest_hex=digest_hex):
                        await self._remove(name, digest_hex)
                    case Forget(name=name):
                        self._forget(name)
            except NoAnswer as error:
                _log.warning("the engine does not answer", extra={"problem": str(error)})
                return

    def read_base(self) -> None:
        """Start reading the base, unless it is known, being read, or not due yet."""
        due = self._base_setback is None or time.monotonic() >= self._base_setback.due
        if self._work.base is None and self._base_task is None and due:
            self._base_task = asyncio.create_task(self._read_base())

    def secret_changed(self) -> None:
        """Try again what another token may open."""
        self._base_setback = None
        for name, it in list(self._work.setbacks.items()):
            if it.reason in _AUTHORISATION:
                del self._work.setbacks[name]

    def cancel_fetches_but(self, needed: AbstractSet[str]) -> None:
        """Stop downloads that nobody wants any more."""
        for digest_hex, task in self._work.fetching.items():
            if digest_hex not in needed:
                task.cancel()

    async def close(self) -> None:
        """Stop everything that is under way."""
        tasks = [*self._work.fetching.values(), *self._work.probing.values()]
        if self._base_task is not None:
            tasks.append(self._base_task)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _load(self, name: str) -> None:
        path = self._disk.path(self._work.hexes[name])
        try:
            await self._engine.load(name, path)
        except Refusal as refusal:
            self._set_back(name, Step.LOAD, of_load(refusal))
        except NoAnswer as error:
            self._set_back(name, Step.LOAD, silence(error, reason="EngineNotReady"))
            raise
        else:
            self._work.life = lives.loaded(self._work.life)
            self._work.setbacks.pop(name, None)
            _log.info("loaded", extra={"adapter": name})
            # The next step sees it listed, and probes.
            self._wake()

    async def _unload(self, name: str) -> None:
        try:
            await self._engine.unload(name)
        except Refusal as refusal:
            _log.warning("the engine refuses to unload", extra={"adapter": name, "problem": str(refusal)})
        else:
            _log.info("unloaded", extra={"adapter": name})
            self._wake()

    async def _remove(self, name: str, digest_hex: str) -> None:
        """Delete the files, once no request runs on any name of this content.

        vLLM reads an adapter's files again when a request needs one that its cache has lost; a directory that is gone
        then takes the whole engine down, also for a request that came in before the unload.
        """
        if await self._may_be_read(name, digest_hex):
            return
        await asyncio.to_thread(shutil.rmtree, self._disk.hide(digest_hex))
        _log.info("removed files", extra={"adapter": name, "digest": digest_hex})
        for other, it in list(self._work.setbacks.items()):
            if it.reason == NO_SPACE:
                del self._work.setbacks[other]
        self._forget(name)

    async def _may_be_read(self, name: str, digest_hex: str) -> bool:
        engine, now = self._work.life.healthy_since, time.monotonic()
        unlisted = self._unlisted.setdefault(name, _Unlisted(since=now, engine=engine))
        same = unlisted.engine == engine
        if now - unlisted.since < self._settings.drain_seconds or (
            same and name in self.lingering and now < self._blind_until
        ):
            return True
        busy = await self._engine.busy()
        if busy is not None:
            return any(self._work.hexes.get(other) == digest_hex for other in busy)
        self._blind_until = now + BLIND_GRACE_SECONDS
        if same and now - unlisted.since >= BLIND_GRACE_SECONDS and name not in self.lingering:
            _log.warning("files stay, for the engine does not tell who needs them", extra={"adapter": name})
            self.lingering |= {name}
        return same

    def _forget(self, name: str) -> None:
        self._work.hexes.pop(name, None)
        self._unlisted.pop(name, None)
        self.lingering -= {name}
        self._wake()

    async def _fetch(self, name: str, entry: Entry) -> None:
        if self._work.base is None:
            return
        token = self._secret.hub_token(entry.hub.credential)
        try:
            version = self._work.engine_version or None
            await self._fetcher.fetch(entry, token=token, base=self._work.base, version=version)
        except Trouble as trouble:
            self._set_back(name, Step.FETCH, trouble)
        else:
            self._work.setbacks.pop(name, None)
            _log.info("fetched", extra={"adapter": name, "bytes": entry.size_bytes})

    async def _probe(self, name: str) -> None:
        life = self._work.life.healthy_since
        trouble: Trouble | None = None
        try:
            await self._engine.probe(name)
        except Refusal as refusal:
            trouble = of_probe(refusal)
        except NoAnswer as error:
            trouble = silence(error, reason="ProbePending")
        if self._work.life.healthy_since != life:
            # An answer of an engine that is gone.
            return
        if trouble is not None:
            self._set_back(name, Step.PROBE, trouble)
        else:
            self._work.life = lives.answered(self._work.life, name)
            self._work.setbacks.pop(name, None)

    async def _read_base(self) -> None:
        tokens = (self._settings.hub_token, *(self._secret.hub_token(key) for key in sorted(self._secret.credentials)))
        try:
            self._work.base = await read_base(
                name=self._settings.base_model,
                path=self._settings.base_model_path,
                hub=self._fetcher.hub,
                tokens=tokens,
            )
        except Trouble as trouble:
            self._set_base_back(trouble)
        except Exception as error:  # noqa: BLE001 - see below
            # Nobody awaits this task, and its end wakes the loop: without a setback it would begin anew at once.
            _log.exception("reading the base failed")
            problem = f"{type(error).__name__} while reading {self._settings.base_model}: see spec.baseModel"
            self._set_base_back(Trouble("BaseNotReadable", problem, ends=Ends.REFUSED))
        finally:
            self._base_task = None
            self._wake()

    def _set_base_back(self, trouble: Trouble) -> None:
        self._work.base_problem = trouble.message
        self._base_setback = backoff.after(
            self._base_setback, trouble, step=Step.FETCH, now=time.monotonic(), jitter=_jitter()
        )
        _log.warning("the base can't be read", extra={"problem": trouble.message})

    def _set_back(self, name: str, step: Step, trouble: Trouble) -> None:
        if name not in self._work.hexes:
            return
        before = self._work.setbacks.get(name)
        now = backoff.after(before, trouble, step=step, now=time.monotonic(), jitter=_jitter())
        self._work.setbacks[name] = now
        if before is None or (before.reason, before.message) != (now.reason, now.message):
            _log.warning(
                "set back",
                extra={"adapter": name, "step": step.value, "reason": now.reason, "problem": now.message},
            )

    def _start(self, under_way: dict[str, asyncio.Task[None]], key: str, do: Callable[[], Awaitable[None]]) -> None:
        """Run something beside the loop; its end wakes the loop."""

        async def until_done() -> None:
            try:
                await do()
            except Exception:  # noqa: BLE001 - see below
                # Nobody awaits this task: said here, or nowhere. The next step tries again.
                _log.exception("something under way failed", extra={"key": key})
                await asyncio.sleep(1)
            finally:
                under_way.pop(key, None)
                self._wake()

        under_way[key] = asyncio.create_task(until_done())


def _jitter() -> float:
    return random.random()  # noqa: S311 - spreads retries, guards nothing
