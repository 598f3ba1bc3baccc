"""The loop: look at the engine, compare with what is wanted, do what `plan` says, tell how it went. Again and again.

Level-triggered: it runs every few seconds and at once when something changes, and needs neither the operator nor its
own past to repair what an engine's restart took away. The actions themselves are in `apply`.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from dataclasses import replace
from importlib.metadata import version

from lora_agent import life as lives
from lora_agent.apply import Carrier, Work
from lora_agent.backoff import Step
from lora_agent.certificate import ServerTls
from lora_agent.disk import hex_of
from lora_agent.engine import Engine, Health
from lora_agent.fetch import Fetcher
from lora_agent.memory import Memory
from lora_agent.plan import Observed, is_settled, plan, report
from lora_agent.readiness import is_ready
from lora_agent.report import Board
from lora_agent.secret import Secret
from lora_agent.settings import Settings
from lora_agent.shards import Shards
from lora_operator.protocol.door import EngineReport, Report
from lora_operator.protocol.manifest import Entry, Shard

_log = logging.getLogger(__name__)
_VERSION = version("lora-operator")


class Holder:
    """Holds the adapters of one engine."""

    def __init__(self, settings: Settings, *, engine: Engine, fetcher: Fetcher, secret: Secret, tls: ServerTls) -> None:
        self._settings = settings
        self._engine = engine
        self._disk = fetcher.disk
        self._secret = secret
        self._tls = tls
        self._shards = Shards(state=fetcher.disk.state, mount=settings.manifest_path)
        self._memory = Memory(fetcher.disk.state, pod_uid=settings.pod_uid)
        self._wanted: dict[str, Entry] = {}
        self._ready = self._memory.last.ready
        self._wake = asyncio.Event()
        self._work = Work(life=self._memory.last.life, hexes=dict(self._memory.last.hexes))
        self._carrier = Carrier(
            settings, self._work, engine=engine, fetcher=fetcher, secret=secret, wake=self._wake.set
        )
        self.board = Board(Report(instance="", sequence=0, agent_version=_VERSION, engine=EngineReport(healthy=False)))

    @property
    def work(self) -> Work:
        """What is known and under way."""
        return self._work

    async def run(self) -> None:
        """Hold the adapters until cancelled."""
        self._wake.set()
        try:
            while True:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(self._settings.poll_seconds):
                        await self._wake.wait()
                # Cleared before the step: a change during it is not lost.
                self._wake.clear()
                try:
                    await self.step()
                except Exception:  # noqa: BLE001 - see below
                    # The loop is what heals the engine: it outlives whatever a step runs into.
                    _log.exception("a step failed, the next one starts anew")
        finally:
            await self._carrier.close()

    async def step(self) -> None:
        """Take one look at everything and do what follows from it."""
        await self.look_round()
        await self._carrier.carry_out(plan(self._observed()), self._wanted)
        self.refresh()

    async def look_round(self) -> None:
        """Take one look at everything and tell what there is."""
        self._shards.poll()
        if self._secret.poll():
            self._carrier.secret_changed()
            self._tls.take(self._secret.certificate)
        self._take_wanted()
        self._carrier.read_base()
        await self._look()
        self.refresh()

    def push(self, shard: Shard) -> None:
        """Take a shard that the operator pushed."""
        if self._shards.offer(shard):
            self._take_wanted()
            self.refresh()
            self._wake.set()

    def refresh(self) -> None:
        """Tell what is true now: the report, readiness, and what is to be remembered."""
        observed = self._observed()
        entries = tuple(report(observed, name) for name in sorted(observed.hexes.keys() - self._carrier.lingering))
        self._ready |= (
            ready := self._is_ready(observed, {entry.engine_name for entry in entries if not is_settled(entry)})
        )
        self.board.publish(
            self.board.report.model_copy(
                update={
                    "shards": self._shards.revisions,
                    "ready": ready,
                    "engine": EngineReport(
                        healthy=observed.view.health is Health.UP,
                        served=observed.view.served,
                        version=self._work.engine_version or "",
                        loads_since_start=observed.life.loads,
                    ),
                    "entries": entries,
                    "base_known": self._work.base is not None,
                }
            )
        )
        self._memory.keep(ready=self._ready, life=self._work.life, hexes=self._work.hexes)

    def _is_ready(self, observed: Observed, unsettled: set[str]) -> bool:
        return is_ready(
            observed.life,
            was_ready=self._ready,
            unsettled=unsettled & observed.wanted.keys(),
            on_disk={name for name in observed.wanted if observed.hexes[name] in observed.published},
            now=observed.now,
            bound=self._settings.ready_timeout_seconds,
        )

    def _take_wanted(self) -> None:
        """Bring what is known of entries in line with what is wanted now."""
        wanted = self._shards.wanted()
        for name, entry in wanted.items():
            self._work.hexes[name] = hex_of(entry.digest) or ""
            before = self._wanted.get(name)
            if before is not None and before != entry:
                self._work.setbacks.pop(name, None)
        for name in self._work.setbacks.keys() - wanted.keys():
            del self._work.setbacks[name]
        self._wanted = wanted
        self._carrier.cancel_fetches_but({self._work.hexes[name] for name in wanted})

    async def _look(self) -> None:
        """See what the engine has, and whether it is still the engine of before."""
        work = self._work
        view = await self._engine.look()
        if view.health in {Health.SILENT, Health.UNLISTED}:
            # It may be hanging or merely busy: what it had is the best that is known.
            view = replace(view, served=work.view.served, adapters=work.view.adapters)
        if view.health is not work.view.health:
            _log.info("engine", extra={"health": view.health.value, "problem": view.problem})
        life = lives.after(work.life, view, wanted=self._wanted.keys(), now=time.monotonic())
        if life.healthy_since != work.life.healthy_since:
            # Another engine process, or one that we see for the first time: what the last one refused is open again.
            work.forget_setbacks(Step.LOAD, Step.PROBE)
            work.engine_version = None
        work.life, work.view = life, view
        for name, root in view.adapters.items():
            # Ours by its place, should the memory of it be lost: else it would never be unloaded.
            if name not in work.hexes and (digest_hex := self._disk.digest_at(root)) is not None:
                work.hexes[name] = digest_hex
        work.forget_outdated(self._disk)
        if view.health is Health.UP and work.engine_version is None:
            work.engine_version = await self._engine.version()

    def _observed(self) -> Observed:
        work = self._work
        hexes = {
            name: digest_hex
            for name, digest_hex in work.hexes.items()
            # Of a shard that is unknown nothing is leaving.
            if name in self._wanted or self._shards.knows(name)
        }
        return Observed(
            wanted=self._wanted,
            hexes=hexes,
            paths={digest_hex: str(self._disk.path(digest_hex)) for digest_hex in hexes.values()},
            published=self._disk.published,
            fetching=frozenset(work.fetching),
            view=work.view,
            life=work.life,
            probing=frozenset(work.probing),
            setbacks=work.setbacks,
            credentials=self._secret.credentials,
            base_problem="" if work.base is not None else work.base_problem,
            now=time.monotonic(),
        )
