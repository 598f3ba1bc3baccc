"""What a pass observed, as one frozen value: all that plan and status go by. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from lora_operator.api.lora_adapter import AdapterStatus, LoRAAdapter
from lora_operator.api.lora_engine import LoRAEngine
from lora_operator.api.lora_training_job import LoRATrainingJob
from lora_operator.protocol.door import EntryReport
from lora_operator.protocol.manifest import Entry

Object = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class PodView:
    """One Ready pod of the engine. `entries` is None while its agent has not been heard."""

    name: str
    entries: Mapping[str, EntryReport] | None
    silent: bool = False
    """Its agent has not answered for so long that it counts as not holding anything."""


@dataclass(frozen=True, kw_only=True)
class Observed:
    """Everything that the pass decides from."""

    obj: Object
    adapter: LoRAAdapter
    engine: LoRAEngine | None
    allowed: bool
    job: LoRATrainingJob | None
    held: tuple[Entry, ...]
    """This object's entries: as last wanted, else as the manifest has them."""
    written: tuple[Entry, ...]
    """This object's entries in the manifest as written."""
    pods: tuple[PodView, ...]
    starting: bool
    """Some pod of the engine is not Ready: the counts are about to change again."""
    suspended: bool
    now: datetime

    @property
    def status(self) -> AdapterStatus:
        """Return the status as it stands."""
        return self.adapter.status or AdapterStatus()
