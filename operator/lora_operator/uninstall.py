"""What `helm uninstall` runs first: stop the operator, then take our finalisers off everything that it watched.

Without this, an object's deletion would wait for an operator that is gone, and with it its namespace. Engines are left
as they are: they go on serving what they hold.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sys
from typing import Any, Final

import click
from kubernetes.aio.client.exceptions import ApiException

from lora_operator import logs
from lora_operator.clients import kube as kube_client
from lora_operator.clients.kube import ADAPTERS, DEPLOYMENTS, ENGINES, PODS, TRAINING_JOBS, Kube, Resource
from lora_operator.errors import ChangedError
from lora_operator.finalizing import without_finalizer

logger = logging.getLogger(__name__)

STOP_SECONDS: Final = 60.0
POLL_SECONDS: Final = 1.0
KINDS: Final = (ADAPTERS, ENGINES, TRAINING_JOBS)

Object = dict[str, Any]


@click.command()
@click.option("--namespace", required=True, help="The operator's namespace.")
@click.option("--deployment", required=True, help="The operator's Deployment.")
@click.option("--watched", multiple=True, help="A namespace that the operator watched; none: the whole cluster.")
def main(namespace: str, deployment: str, watched: tuple[str, ...]) -> None:
    """Stop the operator and remove its finalisers."""
    logs.set_up("INFO")
    sys.exit(asyncio.run(uninstall(namespace, deployment, watched)))


async def uninstall(namespace: str, deployment: str, watched: tuple[str, ...]) -> int:
    """Do both; return the exit status."""
    kube = await kube_client.connect(saw=lambda _: None)
    try:
        if not await stop(kube, namespace, deployment):
            logger.error("the operator still runs after %s s: nothing was let go", STOP_SECONDS)
            return 1
        for place in watched or (None,):
            for resource in KINDS:
                await let_go(kube, resource, place)
    finally:
        await kube.close()
    return 0


async def stop(kube: Kube, namespace: str, deployment: str) -> bool:
    """Scale the operator to nothing; tell whether no pod of it is left within the time."""
    if await kube.get(DEPLOYMENTS, namespace, deployment) is None:
        return True
    scaled = await kube.apply(
        {
            "apiVersion": DEPLOYMENTS.api_version,
            "kind": DEPLOYMENTS.kind,
            "metadata": {"name": deployment, "namespace": namespace},
            "spec": {"replicas": 0},
        }
    )
    deadline = asyncio.get_running_loop().time() + STOP_SECONDS
    while await _runs(kube, scaled):
        if asyncio.get_running_loop().time() >= deadline:
            return False
        await asyncio.sleep(POLL_SECONDS)
    return True


async def _runs(kube: Kube, scaled: Object) -> bool:
    """Tell whether there may be a pod: a Deployment counts none that is ending, and one that is ending still writes."""
    metadata = scaled["metadata"]
    found = await kube.get(DEPLOYMENTS, metadata["namespace"], metadata["name"])
    if found is None:
        return False
    status = found.get("status") or {}
    if status.get("observedGeneration", 0) < metadata["generation"] or status.get("replicas"):
        return True
    selector = ",".join(f"{name}={value}" for name, value in found["spec"]["selector"]["matchLabels"].items())
    pods = (await kube.list(PODS, namespace=metadata["namespace"], selector=selector)).items
    return any(pod.get("status", {}).get("phase") not in {"Succeeded", "Failed"} for pod in pods)


async def let_go(kube: Kube, resource: Resource, namespace: str | None) -> None:
    """Take our finaliser off all objects of a kind."""
    try:
        listing = await kube.list(resource, namespace=namespace)
    except ApiException as error:
        if error.status == 404:  # the CRD is gone, and its objects with it
            return
        raise
    for obj in listing.items:
        if (operations := without_finalizer(obj)) is None:
            continue
        with contextlib.suppress(ChangedError):  # it went by itself
            await kube.patch(obj, operations)
        logger.info("let go of %s %s/%s", resource.kind, obj["metadata"]["namespace"], obj["metadata"]["name"])


if __name__ == "__main__":
    main()
