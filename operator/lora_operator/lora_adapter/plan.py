"""What the LoRAAdapter pass decides: what stands in the way, whether a pin holds, what is to be held. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from lora_operator import engine_terms
from lora_operator.api.lora_adapter import PollMode
from lora_operator.errors import Blocked, PassError
from lora_operator.labels import Key
from lora_operator.lora_adapter.observed import Observed, PodView
from lora_operator.protocol.door import State
from lora_operator.protocol.manifest import Entry


@dataclass(frozen=True, kw_only=True)
class Rollout:
    """The versions to hold, and how far the wanted one is."""

    current: Entry | None
    """The version that serves: the wanted one once it answers everywhere, else the one before it."""
    target: Entry | None
    """The wanted version."""
    want: tuple[Entry, ...]


def obstacle(observed: Observed) -> PassError | None:
    """Return what forbids serving before anything is resolved, or None."""
    adapter, engine = observed.adapter, observed.engine
    name = adapter.engine_key
    if engine is None and observed.status.current is not None:
        return Blocked("EngineGone", f"{name} is gone: create it again, or delete this LoRAAdapter")
    return engine_terms.obstacle(
        engine,
        name=name,
        allowed=observed.allowed,
        namespace=adapter.metadata.namespace,
        base=adapter.spec.base_model,
        base_field="spec.baseModel",
    )


def newest(entries: tuple[Entry, ...]) -> Entry | None:
    """Return the version that was asked for last."""
    return max(entries, key=lambda entry: (entry.owner.generation, entry.resolved), default=None)


def holding_pin(observed: Observed) -> Entry | None:
    """Return the pin that answers the present request, or None where the source has to be resolved."""
    pin = newest(observed.held)
    metadata = observed.adapter.metadata
    if pin is None or pin.owner.generation != metadata.generation:
        return None
    if pin.owner.requested_at != observed.adapter.requested_at:
        return None
    return pin


def next_poll(observed: Observed, resolved_at: datetime | None) -> float | None:
    """Return the seconds until the source is to be resolved anew (0: now); None where a pin stands until asked."""
    hub = observed.adapter.spec.source.hub
    if hub is None or hub.poll.mode is PollMode.NEVER:
        return None
    if resolved_at is None:
        return 0.0
    return max(0.0, hub.poll.interval_seconds - (observed.now - resolved_at).total_seconds())


def presumed_poll(observed: Observed) -> datetime | None:
    """Return when a source that polls was last looked at, by the rhythm that began when its pin was made.

    For a start of ours, which is no reason to look: the pin is all that tells.
    """
    hub, pin = observed.adapter.spec.source.hub, newest(observed.held)
    if hub is None or pin is None:
        return None
    age = (observed.now - datetime.fromisoformat(pin.resolved)).total_seconds()
    return observed.now - timedelta(seconds=age % hub.poll.interval_seconds)


def rollout(observed: Observed, target: Entry | None) -> Rollout:
    """Return what to hold: the target, and the version before it until the target answers on every Ready pod.

    Without a target (its source can't be resolved, or is refused) everything stays as it is; unless its engine, which
    is there, does not let it in any more. Where the engine is gone nothing serves, whatever is still wanted.
    """
    if observed.engine is None:
        return Rollout(current=None, target=None, want=observed.held)
    if not observed.allowed:
        return Rollout(current=None, target=None, want=())
    if target is None:
        return Rollout(current=_serving(observed, observed.held), target=None, want=observed.held)
    older = tuple(entry for entry in observed.held if entry.engine_name != target.engine_name)
    if not older or answers_everywhere(observed.pods, target.engine_name):
        done = answers_everywhere(observed.pods, target.engine_name) or _was_current(observed, target)
        return Rollout(current=target if done else None, target=target, want=(target,))
    serving = _serving(observed, older)
    return Rollout(current=serving, target=target, want=(serving, target) if serving is not None else (target,))


def answers_everywhere(pods: tuple[PodView, ...], engine_name: str) -> bool:
    """Tell whether a version answers on every Ready pod, of which there must be one."""
    return bool(pods) and all(answers(pod, engine_name) for pod in pods)


def answers(pod: PodView, engine_name: str) -> bool:
    """Tell whether a version answers on a pod."""
    entry = (pod.entries or {}).get(engine_name)
    return entry is not None and entry.state is State.LOADED and not pod.silent


def is_unheard(pods: tuple[PodView, ...]) -> bool:
    """Tell whether some pod may hold everything but has not been asked yet, as after a restart of the operator."""
    return any(pod.entries is None and not pod.silent for pod in pods)


def left_behind(observed: Observed, key: Key) -> list[str]:
    """Return where a deleted adapter still is: in the manifest, or on pods."""
    prefix = f"{key.namespace}.{key.name}."
    places = ["the manifest"] if observed.written else []
    places += [
        f"pod {pod.name}"
        for pod in observed.pods
        if pod.entries is None or any(is_of(name, prefix) for name in pod.entries)
    ]
    return places


def is_of(engine_name: str, prefix: str) -> bool:
    """Tell whether an engine name is of the adapter with this prefix (names may hold dots themselves)."""
    return engine_name.startswith(prefix) and "." not in engine_name.removeprefix(prefix)


def _was_current(observed: Observed, entry: Entry) -> bool:
    current = observed.status.current
    return current is not None and current.engine_name == entry.engine_name


def _serving(observed: Observed, entries: tuple[Entry, ...]) -> Entry | None:
    return next((entry for entry in entries if _was_current(observed, entry)), newest(entries))
