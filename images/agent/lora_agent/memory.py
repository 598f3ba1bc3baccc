"""What the agent remembers across its own restarts: a small file in the adapters volume, keyed by the pod's uid."""

from __future__ import annotations

import logging
from pathlib import Path

from pydantic import Field, ValidationError

from lora_agent.disk import write_whole
from lora_agent.life import Life
from lora_operator.protocol.manifest import Wire

_log = logging.getLogger(__name__)


class Remembered(Wire):
    """The file's content. Times are the node's monotonic clock, which outlives the process."""

    pod_uid: str
    ready: bool = False
    healthy_since: float | None = None
    answered: frozenset[str] = frozenset()
    refill: frozenset[str] = frozenset()
    loads: int = 0
    hexes: dict[str, str] = Field(default_factory=dict)
    """Engine name -> digest hex, of all that is wanted or not gone yet."""

    @property
    def life(self) -> Life:
        """The engine's life as far as it was seen."""
        return Life(healthy_since=self.healthy_since, answered=self.answered, refill=self.refill, loads=self.loads)


class Memory:
    """Reads the file once and writes it when something in it changes."""

    def __init__(self, state: Path, *, pod_uid: str) -> None:
        self._path = state / "pod.json"
        self._pod_uid = pod_uid
        self._last = self._read()
        self._failing = False

    @property
    def last(self) -> Remembered:
        """What was written last."""
        return self._last

    def keep(self, *, ready: bool, life: Life, hexes: dict[str, str]) -> None:
        """Remember this; where the disk doesn't take it, a later call tries again."""
        now = Remembered(
            pod_uid=self._pod_uid,
            ready=ready,
            healthy_since=life.healthy_since,
            answered=life.answered,
            refill=life.refill,
            loads=life.loads,
            hexes=hexes,
        )
        if now == self._last:
            return
        try:
            write_whole(self._path, now.model_dump_json(by_alias=True))
        except OSError as error:
            if not self._failing:
                _log.warning("what is known can't be kept for a restart", extra={"problem": str(error)})
            self._failing = True
        else:
            self._last, self._failing = now, False

    def _read(self) -> Remembered:
        try:
            found = Remembered.model_validate_json(self._path.read_bytes())
        except (OSError, ValidationError):
            return Remembered(pod_uid=self._pod_uid)
        return found if found.pod_uid == self._pod_uid else Remembered(pod_uid=self._pod_uid, hexes=found.hexes)
