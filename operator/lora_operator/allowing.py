"""Whether a LoRAEngine takes adapters, and trainings of adapters, from a namespace."""

from __future__ import annotations

from lora_operator.api.lora_engine import LoRAEngine, NamespacesFrom
from lora_operator.clients.kube import NAMESPACES, Kube


async def takes_from(engine: LoRAEngine, namespace: str, kube: Kube) -> bool:
    """Tell whether spec.allowedNamespaces lets this namespace in; its labels are read only where they decide."""
    allowed = engine.spec.allowed_namespaces
    if namespace == engine.metadata.namespace or allowed.from_ is NamespacesFrom.ALL:
        return True
    if allowed.from_ is NamespacesFrom.SAME or allowed.selector is None:
        return False
    found = await kube.get(NAMESPACES, "", namespace)
    return found is not None and allowed.selector.matches(found["metadata"].get("labels") or {})
