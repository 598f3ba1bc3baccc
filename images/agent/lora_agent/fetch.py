"""One adapter from the Hub into the volume: reserve, download, verify every byte, publish; or the Trouble why not.

Nothing is published that was not verified: the files' sha256, the digest, the shapes against the base, finite values.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from lora_agent.backoff import Ends, Trouble
from lora_agent.base import Known
from lora_agent.disk import Disk, NoSpace, hex_of, sync
from lora_agent.hub import Hub
from lora_operator import adapter
from lora_operator.engines.limits import completed
from lora_operator.protocol.manifest import Entry

NO_SPACE: Final = "NoSpace"


@dataclass(frozen=True, slots=True, kw_only=True)
class Fetcher:
    """Brings adapters onto one disk, for one engine."""

    hub: Hub
    disk: Disk
    limits: adapter.EngineLimits
    """What the pod template says of the engine."""

    async def fetch(self, entry: Entry, *, token: str | None, base: Known, version: str | None) -> None:
        """Fetch and publish an entry's adapter; `version` is the engine's, where it has told it. Raises Trouble."""
        digest_hex = _checked_hex(entry)
        try:
            with self.disk.reserve(entry.size_bytes) as place:
                for file in entry.files:
                    await self.hub.download(entry.hub, file, token=token, into=place / file.path)
                verdict = await asyncio.to_thread(self._judge, entry, place, base, version)
                if not verdict.servable:
                    unknown = verdict.compatible == "Unknown"
                    raise Trouble(verdict.reason, verdict.message(), ends=Ends.REFUSED if unknown else Ends.CONTENT)
                await asyncio.to_thread(sync, place)
                self.disk.publish(place, digest_hex)
        except NoSpace as error:
            raise Trouble(NO_SPACE, str(error), ends=Ends.REFUSED) from error
        except OSError as error:
            raise Trouble("DiskError", f"the adapters volume: {error.strerror}", ends=Ends.REFUSED) from error

    def _judge(self, entry: Entry, place: Path, base: Known, version: str | None) -> adapter.Verdict:
        limits = completed(replace(self.limits, version=version), base=base.wire.config)
        expected = {file.path: file.sha256 for file in entry.files}
        stored = base.shapes.stored if base.shapes else None
        opened = adapter.open_directory(place, level="full", expected=expected, stored=stored)
        return adapter.inspect(opened, base.shapes, limits, base_name=base.wire.name)


def _checked_hex(entry: Entry) -> str:
    """Return the hex of the entry's digest, once its files are known to be plain names and to make that digest."""
    names = {file.path: file.sha256 for file in entry.files}
    if set(adapter.weights_files(names)) != names.keys():
        message = f"the manifest lists files that are no part of an adapter: {sorted(names)[:8]}"
        raise Trouble("ManifestInvalid", message, ends=Ends.CONTENT)
    digest_hex = hex_of(entry.digest)
    if digest_hex is None or adapter.digest(names) != entry.digest:
        message = "the manifest's files do not make the digest that it names"
        raise Trouble("DigestMismatch", message, ends=Ends.CONTENT)
    return digest_hex
