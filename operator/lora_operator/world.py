"""What every pass is handed: the clients, what was seen, and the few values that one pass leaves for another.

The blackboards hold what can be had again: a resolution that the manifest pins, a report that the next call repeats.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from lora_operator.clients.bases import Bases
from lora_operator.clients.door import Access, Doors
from lora_operator.clients.hub import Hub
from lora_operator.clients.kube import Kube
from lora_operator.errors import PassError
from lora_operator.events import Recorder
from lora_operator.labels import Key
from lora_operator.protocol.door import Base, Report
from lora_operator.protocol.manifest import Entry
from lora_operator.protocol.training import TrainerStatus
from lora_operator.reporting import Reporter
from lora_operator.settings import Settings
from lora_operator.store import Store

SILENCE_SECONDS: Final = 60.0
"""After so long without an answer, what an agent said last counts no more."""


@dataclass(frozen=True, kw_only=True)
class StandingRefusal:
    """What the Hub or a check refused to a pass: what was asked, why, and until when the answer is taken to stand."""

    asked: tuple[object, ...]
    problem: PassError
    until: datetime


@dataclass(frozen=True, kw_only=True)
class World:
    """Everything outside a pass. Of a kind only what reads (`observe`, `resolve`, `preflight`, `read_back`) and
    what writes (`apply`, `leave`) reach for the clients; and the Pod's pass, whose whole work is calls."""

    settings: Settings
    store: Store
    kube: Kube
    hub: Hub
    doors: Doors
    recorder: Recorder
    reporter: Reporter
    wake: Callable[[Key], None]
    """Put a key of any kind on its queue, now."""
    now: Callable[[], datetime]
    wanted: dict[Key, tuple[Entry, ...]] = field(default_factory=dict)
    """By LoRAAdapter: the entries that the manifest is to hold for it. Absent: keep what the manifest has."""
    credentials: dict[str, str] = field(default_factory=dict)
    """By credential key (protocol.door.credential_key): the Hub token that agents need. Never logged."""
    reports: dict[Key, Report] = field(default_factory=dict)
    """By Pod: what its agent said last."""
    silent: dict[Key, datetime] = field(default_factory=dict)
    """By Pod: since when its agent has not answered."""
    access: dict[Key, Access] = field(default_factory=dict)
    """By LoRAEngine: how to reach its agents, as last read from its Secret."""
    bases: dict[Key, Base] = field(default_factory=dict)
    """By LoRAEngine: what an agent read of the base model."""
    remote_bases: Bases = field(default_factory=Bases)
    """What was read of bases on the Hub, for the time that no agent has told of them."""
    refusals: dict[Key, StandingRefusal] = field(default_factory=dict)
    """By LoRAAdapter, its source; by LoRATrainingJob, its pre-flight: refused, and not to be asked again at once."""
    resolved: dict[Key, datetime] = field(default_factory=dict)
    """By LoRAAdapter: when its source was last resolved, for those that poll."""
    gaps: dict[Key, datetime] = field(default_factory=dict)
    """By LoRAAdapter: since when a Ready pod has lacked a version that had answered everywhere."""
    progress: dict[Key, TrainerStatus] = field(default_factory=dict)
    """By LoRATrainingJob: what its trainer said last."""
