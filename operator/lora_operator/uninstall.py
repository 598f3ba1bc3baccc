"""What `helm uninstall` runs first: stop the operator, then take our finalisers off everything.

Without this, an object's deletion would wait for an operator that is gone, and with it its namespace. Engines are left
as they are: they go on serving what they hold.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sys
from typing import Final

import click

from lora_operator import logs
from lora_operator.clients import kube as kube_client
from lora_operator.clients.kube import ADAPTERS, DEPLOYMENTS, ENGINES, TRAINING_JOBS, Kube
from lora_operator.errors import ChangedError
from lora_operator.finalizing import without_finalizer

logger = logging.getLogger(__name__)

STOP_SECONDS: Final = 60.0
POLL_SECONDS: Final = 1.0


@click.command()
@click.option("--namespace", required=True, help="The operator's namespace.")
@click.option("--deployment", required=True, help="The operator's Deployment.")
def main(namespace: str, deployment: str) -> None:
    """Stop the operator and remove its finalisers everywhere."""
    logs.set_up("INFO")
    sys.exit(asyncio.run(uninstall(namespace, deployment)))


async def uninstall(namespace: str, deployment: str) -> int:
    """Do both; return the exit status."""
    kube = await kube_client.connect(saw=lambda _: None)
    try:
        if not await _stop(kube, namespace, deployment):
            logger.error("the operator still runs after %s s", STOP_SECONDS)
            return 1
        await _let_go(kube)
    finally:
        await kube.close()
    return 0


async def _stop(kube: Kube, namespace: str, deployment: str) -> bool:
    """Scale the operator to nothing and wait until no pod of it is left."""
    if await kube.get(DEPLOYMENTS, namespace, deployment) is None:
        return True
    patch = {
        "apiVersion": DEPLOYMENTS.api_version,
        "kind": DEPLOYMENTS.kind,
        "metadata": {"name": deployment, "namespace": namespace},
        "spec": {"replicas": 0},
    }
    await kube.apply(patch)
    deadline = asyncio.get_running_loop().time() + STOP_SECONDS
    while asyncio.get_running_loop().time() < deadline:
        found = await kube.get(DEPLOYMENTS, namespace, deployment)
        if found is None or not (found.get("status") or {}).get("replicas"):
            return True
        await asyncio.sleep(POLL_SECONDS)
    return False


async def _let_go(kube: Kube) -> None:
    for resource in (ADAPTERS, ENGINES, TRAINING_JOBS):
        for obj in (await kube.list(resource)).items:
            if (body := without_finalizer(obj)) is None:
                continue
            with contextlib.suppress(ChangedError):  # it went by itself
                await kube.apply(body, last=True)
            logger.info("let go of %s %s/%s", resource.kind, obj["metadata"]["namespace"], obj["metadata"]["name"])


if __name__ == "__main__":
    main()
