"""The objects of one training: the frozen spec's ConfigMap, the Job, and the LoRAAdapter that serves the result. Pure.

The Job as it was first made lies beside the frozen spec: what is applied later is that Job and no other, whatever the
operator was upgraded to meanwhile.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import Any, Final

from lora_operator import labels
from lora_operator.adapter import EngineLimits
from lora_operator.api.lora_training_job import LoRATrainingJob, Resolved
from lora_operator.api.schema import Model
from lora_operator.lora_training_job import trainer_pod
from lora_operator.lora_training_job.attempts import CONTAINER
from lora_operator.protocol.training import ExitCode
from lora_operator.settings import Settings

Object = dict[str, Any]

JOB_KEY: Final = "job.json"
RESOLVED_KEY: Final = "resolved.json"
NAME_LIMIT: Final = 63
"""A Job's name is a label of its pods."""

FINAL: Final = (
    ExitCode.CONFIG_INVALID,
    ExitCode.DATASET_INVALID,
    ExitCode.GATE_FAILED,
    ExitCode.HUB_UNAUTHORIZED,
    ExitCode.OUT_OF_MEMORY,
)
"""Exit codes after which another attempt would end the same way. 137 is none: it is of memory only where kubelet says
so, which a Job's policy can't see; `timed` ends the Job then."""


@dataclass(frozen=True, kw_only=True)
class Pins:
    """What the names in the spec stand for."""

    base_revision: str
    dataset_revision: str
    """The data set's commit, the digest of its file, or nothing where only the trainer sees it."""
    adapter_revision: str = ""
    """The commit of the adapter that the training goes on from, where there is one."""
    dataset: Object | None = None
    """The data set itself, as `data` or `binaryData` of a ConfigMap, where it lies in one."""


def run_name(job: LoRATrainingJob) -> str:
    """Return the name of the Job and of the ConfigMap: readable, unique to this very object, and a valid label."""
    digest = hashlib.sha256(job.metadata.uid.encode()).hexdigest()[:10]
    name = job.metadata.name.replace(".", "-")
    return f"{name[: NAME_LIMIT - len(digest) - 1].rstrip('-')}-{digest}"


def frozen(
    job: LoRATrainingJob, limits: EngineLimits | None, pins: Pins, *, settings: Settings, progress_ca: str
) -> Object:
    """Return the ConfigMap that holds everything that this training is, as of now."""
    resolved = Resolved(
        base_revision=pins.base_revision, dataset_revision=pins.dataset_revision, image=settings.trainer_image
    )
    data = {
        trainer_pod.SPEC_KEY: _json(frozen_spec(job, limits, pins)),
        JOB_KEY: _json(_job(job, settings, progress_ca)),
        RESOLVED_KEY: _json(_dumped(resolved)),
        trainer_pod.PROGRESS_CA_KEY: progress_ca,
    }
    return _owned(job, "v1", "ConfigMap") | {"data": {name: text for name, text in data.items() if text}}


def frozen_dataset(job: LoRATrainingJob, pins: Pins) -> Object | None:
    """Return the ConfigMap with the data set as it is now: every attempt trains on it, come what may."""
    if pins.dataset is None:
        return None
    copy = _owned(job, "v1", "ConfigMap") | pins.dataset
    return copy | {"metadata": copy["metadata"] | {"name": trainer_pod.data_name(run_name(job))}}


def frozen_spec(job: LoRATrainingJob, limits: EngineLimits | None, pins: Pins) -> Object:
    """Return the spec that the trainer reads: the object's own, its revisions pinned, and the engine as it is now."""
    spec = _dumped(job.spec)
    spec["baseModel"]["revision"] = pins.base_revision
    if "hub" in spec["dataset"]["source"]:
        spec["dataset"]["source"]["hub"]["revision"] = pins.dataset_revision
    if pins.adapter_revision:
        spec["lora"]["initFrom"]["hub"]["revision"] = pins.adapter_revision
    if limits is not None:
        known: Object = {
            "type": limits.type,
            "version": limits.version,
            "device": limits.device,
            "maxLoraRank": limits.max_lora_rank,
            "dtype": limits.dtype,
        }
        spec["engine"] = {name: value for name, value in known.items() if value is not None}
    return spec


def timed(frozen_job: str, timing: Object) -> Object:
    """Return the Job as it was frozen, with what of it may change."""
    run: Object = json.loads(frozen_job)
    run["spec"] |= timing
    return run


def adapter_name(job: LoRATrainingJob) -> str | None:
    """Return the name of the LoRAAdapter that is asked for."""
    wanted = job.spec.output.adapter
    return None if wanted is None else wanted.name or job.metadata.name


def adapter(job: LoRATrainingJob, *, commit: str) -> Object:
    """Return the LoRAAdapter that serves the result. No owner: what is served outlives the training's object."""
    wanted, output = job.spec.output.adapter, job.spec.output.hub
    hub: Object = {"repo": output.repo, "revision": commit}
    if output.token_secret_ref is not None:
        hub["tokenSecretRef"] = _dumped(output.token_secret_ref)
    spec: Object = {
        "source": {"hub": hub},
        "baseModel": job.spec.base_model.name,
        "engineRef": _dumped(job.spec.engine_ref) if job.spec.engine_ref is not None else None,
    }
    if wanted is not None and wanted.served_name is not None:
        spec["servedName"] = wanted.served_name
    if wanted is not None and wanted.tenants is not None:
        spec["tenants"] = [_dumped(tenant) for tenant in wanted.tenants]
    metadata = {"name": adapter_name(job), "namespace": job.metadata.namespace, "labels": _labels(job)}
    return {"apiVersion": labels.API_VERSION, "kind": "LoRAAdapter", "metadata": metadata, "spec": spec}


def _job(job: LoRATrainingJob, settings: Settings, progress_ca: str) -> Object:
    rules: list[Object] = [
        {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]},
        {"action": "Ignore", "onExitCodes": _exits(ExitCode.PREEMPTED)},
        {"action": "FailJob", "onExitCodes": _exits(*FINAL)},
    ]
    metadata = {"labels": _labels(job) | {labels.ROLE: labels.TRAINER_ROLE}}
    return _owned(job, "batch/v1", "Job") | {
        "spec": {
            "backoffLimit": job.spec.backoff_limit,
            # Needed by the failure policy, and right: two trainers never publish at the same time.
            "podReplacementPolicy": "Failed",
            "podFailurePolicy": {"rules": rules},
            "template": {
                "metadata": metadata,
                "spec": trainer_pod.pod(job, run_name(job), settings=settings, progress_ca=progress_ca),
            },
        }
    }


def _exits(*codes: int) -> Object:
    return {"containerName": CONTAINER, "operator": "In", "values": sorted(int(code) for code in codes)}


def _owned(job: LoRATrainingJob, api_version: str, kind: str) -> Object:
    metadata = job.metadata
    owner = {
        "apiVersion": labels.API_VERSION,
        "kind": "LoRATrainingJob",
        "name": metadata.name,
        "uid": metadata.uid,
        "controller": True,
        "blockOwnerDeletion": True,
    }
    identity = {"name": run_name(job), "namespace": metadata.namespace}
    return {
        "apiVersion": api_version,
        "kind": kind,
        "metadata": identity | {"labels": _labels(job), "ownerReferences": [owner]},
    }


def _labels(job: LoRATrainingJob) -> dict[str, str]:
    return {labels.TRAINING_JOB: job.metadata.name, labels.MANAGED_BY: labels.FIELD_MANAGER}


def _dumped(model: Model) -> Object:
    return model.model_dump(mode="json", by_alias=True, exclude_none=True)


def _json(value: Object) -> str:
    return json.dumps(value, indent=2, sort_keys=True)
