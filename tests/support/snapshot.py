"""What a namespace holds, in a form that is equal for two runs that came to the same: no uids, times or versions.

Left out of statuses is what may be written half a minute late, by design: counts, and Reconciling beside Ready. Of
Secrets only the names of their keys are looked at.
"""

from __future__ import annotations

import json
import re
from typing import Any

from lora_operator.protocol.manifest import DATA_KEY
from support.apiserver import ApiServer

Object = dict[str, Any]

KINDS = {
    "loraengines": "/apis/lora-operator.io/v1alpha1",
    "loratrainingjobs": "/apis/lora-operator.io/v1alpha1",
    "loraadapters": "/apis/lora-operator.io/v1alpha1",
    "deployments": "/apis/apps/v1",
    "jobs": "/apis/batch/v1",
    "configmaps": "/api/v1",
    "secrets": "/api/v1",
}
COUNTS = {"conditions", "replicas", "pods", "adapters", "slots", "trainerStatus"}
_ALIKE = {
    r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z": "TIME",
    r"\b[0-9a-f]{40}\b": "COMMIT",
    r"-----BEGIN[^-]*-----.*?-----END[^-]*-----": "PEM",
    r"127\.0\.0\.1:\d+": "ADDRESS",
    r"\bhub-[0-9a-f]{16}\b": "CREDENTIAL",
    r"(?<=support-)[0-9a-f]{10}\b": "RUN",
}


def snapshot(api: ApiServer, namespace: str) -> Object:
    """Return the objects of a namespace by kind and name."""
    uids: dict[str, str] = {}
    found: Object = {}
    shards: list[Object] = []
    for plural, group in KINDS.items():
        for obj in api.call("GET", f"{group}/namespaces/{namespace}/{plural}")["items"]:
            name = obj["metadata"]["name"]
            if name == "kube-root-ca.crt":
                continue
            uids[obj["metadata"]["uid"]] = f"UID of {plural}/{name}"
            if DATA_KEY in (obj.get("data") or {}):
                shards += json.loads(obj["data"][DATA_KEY])["entries"]
                obj["data"] = {}  # which shard an entry is in depends on the namespace's name
            found[f"{plural}/{name}"] = _bare(obj, plural)
    text = json.dumps(found | {"manifest": shards}, sort_keys=True, indent=1)
    for uid, words in uids.items():
        text = text.replace(uid, words)
    text = text.replace(namespace, "NAMESPACE")
    for pattern, word in _ALIKE.items():
        text = re.sub(pattern, word, text, flags=re.DOTALL)
    alike: Object = json.loads(text)
    return alike


def _bare(obj: Object, plural: str) -> Object:
    metadata = obj["metadata"]
    kept: Object = {name: metadata.get(name) for name in ("labels", "finalizers", "ownerReferences", "generation")}
    bare: Object = {"metadata": kept, "spec": obj.get("spec"), "data": obj.get("data")}
    if plural == "secrets":
        bare["data"] = sorted(obj.get("data") or {})
    if plural.startswith("lora"):
        bare["status"] = _outline(obj.get("status") or {})
    return bare


def _outline(status: Object) -> Object:
    conditions = {
        one["type"]: [one["status"], one["reason"], one.get("observedGeneration")]
        for one in status.get("conditions") or []
    }
    if conditions.get("Ready", [""])[0] == "True":
        conditions.pop("Reconciling", None)
    return {name: value for name, value in status.items() if name not in COUNTS} | {"conditions": conditions}
