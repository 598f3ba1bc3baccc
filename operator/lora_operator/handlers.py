"""Every kopf decorator. kopf watches, authenticates and keeps the process alive; a handler only hands on what it saw.

Nothing here may fail for a reason worth a retry: kopf logs an event handler's errors and goes on.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import kopf

from lora_operator import labels
from lora_operator.clients.kube import WATCHED, Resource
from lora_operator.watching import SELECTORS, Watching

PAGE = 500


def registry(
    watching: Watching,
    *,
    start: Callable[[], Awaitable[None]],
    stop: Callable[[], Awaitable[None]],
) -> kopf.OperatorRegistry:
    """Return kopf's registry with our handlers: one event handler a watched resource, start-up and clean-up."""
    handlers = kopf.OperatorRegistry()

    @kopf.on.login(registry=handlers)
    async def logged_in(**kwargs: Any) -> Any:
        return kopf.login_with_service_account(**kwargs) or kopf.login_with_kubeconfig(**kwargs)

    @kopf.on.startup(registry=handlers)
    async def started(settings: kopf.OperatorSettings, **_: Any) -> None:
        configure(settings)
        await start()

    @kopf.on.cleanup(registry=handlers)
    async def stopped(**_: Any) -> None:
        await stop()

    for resource in WATCHED:
        group, _, version = resource.api_version.rpartition("/")
        kopf.on.event(group, version, resource.plural, id=resource.plural, registry=handlers)(_seen(watching, resource))
    return handlers


def configure(settings: kopf.OperatorSettings) -> None:
    """Set what the design depends on: no writes by kopf, server-side selectors, no list of CRDs or namespaces."""
    settings.posting.enabled = False
    settings.scanning.disabled = True
    # Never ours: kopf takes its own finaliser off every object that no deletion handler of kopf's waits for.
    settings.persistence.finalizer = f"{labels.GROUP}/kopf"
    settings.watching.chunk_size = PAGE
    for resource, selector in SELECTORS.items():
        group, _, version = resource.api_version.rpartition("/")
        settings.watching.label_selectors[group, version, resource.plural] = selector


def _seen(watching: Watching, resource: Resource) -> Callable[..., Awaitable[None]]:
    async def seen(event: Any, **_: Any) -> None:
        obj = {"apiVersion": resource.api_version, "kind": resource.kind, **event["object"]}
        watching.informed(obj, deleted=event["type"] == "DELETED")

    return seen
