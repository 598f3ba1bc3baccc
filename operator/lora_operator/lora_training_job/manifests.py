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
from lora_operator.api.lora_engine import LoRAEngine
from lora_operator.api.lora_training_job import LoRATrainingJob, Resolved
from lora_operator.api.schema import Model
from lora_operator.lora_training_job.attempts import CONTAINER, KILLED
from lora_operator.protocol import training
from lora_operator.protocol.training import ExitCode
from lora_operator.settings import Settings

Object = dict[str, Any]

SPEC_KEY: Final = "spec.json"
JOB_KEY: Final = "job.json"
RESOLVED_KEY: Final = "resolved.json"
PROGRESS_CA_KEY: Final = "progress-ca.crt"
CA_BUNDLE_KEY: Final = "ca-bundle.crt"
MOUNT: Final = "/etc/lora-train"
TOKEN_FOLDER, TOKEN_FILE = training.PROGRESS_TOKEN_PATH.rsplit("/", 1)
TOKEN_SECONDS: Final = 3600
UID: Final = 10001
GRACE_SECONDS: Final = 45
"""From SIGTERM to SIGKILL: enough to publish what is trained, short enough for a namespace to go within a minute."""
NAME_LIMIT: Final = 63
"""A Job's name is a label of its pods."""

FINAL: Final = (
    ExitCode.CONFIG_INVALID,
    ExitCode.DATASET_INVALID,
    ExitCode.MODEL_UNAVAILABLE,
    ExitCode.NOT_SERVABLE,
    ExitCode.HUB_UNAUTHORIZED,
    ExitCode.OUT_OF_MEMORY,
    KILLED,
)
"""Exit codes after which another attempt would end the same way."""


@dataclass(frozen=True, kw_only=True)
class Pins:
    """What the names in the spec stand for."""

    base_revision: str
    dataset_revision: str
    """The data set's commit, or the digest of the ConfigMap's value."""


@dataclass(frozen=True, kw_only=True)
class Trust:
    """Certificates that trainers are given; empty where there is nothing to give."""

    progress_ca: str = ""
    bundle: str = ""
    """Public ones and those that the operator was installed with: what OpenSSL takes is one file."""


def run_name(job: LoRATrainingJob) -> str:
    """Return the name of the Job and of the ConfigMap: readable, unique to this very object, and a valid label."""
    digest = hashlib.sha256(job.metadata.uid.encode()).hexdigest()[:10]
    name = job.metadata.name.replace(".", "-")
    return f"{name[: NAME_LIMIT - len(digest) - 1].rstrip('-')}-{digest}"


def frozen(job: LoRATrainingJob, engine: LoRAEngine | None, pins: Pins, *, settings: Settings, trust: Trust) -> Object:
    """Return the ConfigMap that holds everything that this training is, as of now."""
    resolved = Resolved(
        base_revision=pins.base_revision, dataset_revision=pins.dataset_revision, image=settings.trainer_image
    )
    data = {
        SPEC_KEY: _json(frozen_spec(job, engine, pins)),
        JOB_KEY: _json(_job(job, settings, trust)),
        RESOLVED_KEY: _json(_dumped(resolved)),
        PROGRESS_CA_KEY: trust.progress_ca,
        CA_BUNDLE_KEY: trust.bundle,
    }
    return _owned(job, "v1", "ConfigMap") | {"data": {name: text for name, text in data.items() if text}}


def frozen_spec(job: LoRATrainingJob, engine: LoRAEngine | None, pins: Pins) -> Object:
    """Return the spec that the trainer reads: the object's own, its revisions pinned, and the engine as it is now."""
    spec = _dumped(job.spec)
    spec["baseModel"]["revision"] = pins.base_revision
    if "hub" in spec["dataset"]["source"]:
        spec["dataset"]["source"]["hub"]["revision"] = pins.dataset_revision
    if engine is not None:
        flags = engine.status.flags if engine.status is not None else None
        rank = int(flags.max_lora_rank) if flags is not None and flags.max_lora_rank is not None else None
        known: Object = {"type": engine.spec.type.value, "maxLoraRank": rank}
        spec["engine"] = {name: value for name, value in known.items() if value is not None}
    return spec


def timed(frozen_job: str, job: LoRATrainingJob) -> Object:
    """Return the Job as it was frozen, with what of the spec may change."""
    run: Object = json.loads(frozen_job)
    run["spec"]["suspend"] = job.spec.suspend
    if job.spec.active_deadline_seconds is not None:
        run["spec"]["activeDeadlineSeconds"] = job.spec.active_deadline_seconds
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


def _job(job: LoRATrainingJob, settings: Settings, trust: Trust) -> Object:
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
            "template": {"metadata": metadata, "spec": _pod(job, settings, trust)},
        }
    }


def _exits(*codes: int) -> Object:
    return {"containerName": CONTAINER, "operator": "In", "values": sorted(int(code) for code in codes)}


def _pod(job: LoRATrainingJob, settings: Settings, trust: Trust) -> Object:
    spec = job.spec
    pod: Object = {
        "restartPolicy": "Never",
        "terminationGracePeriodSeconds": GRACE_SECONDS,
        # The trainer speaks to the Hub and to us, never to the apiserver; a tenant's data set may be hostile.
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": UID,
            "runAsGroup": UID,
            "fsGroup": UID,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [_container(job, settings, trust)],
        "volumes": _volumes(job, settings, trust),
    }
    optional = {
        "imagePullSecrets": [{"name": name} for name in settings.image_pull_secrets],
        "nodeSelector": spec.node_selector,
        "tolerations": [_dumped(toleration) for toleration in spec.tolerations or ()],
        "serviceAccountName": spec.service_account_name,
        "priorityClassName": spec.priority_class_name,
    }
    return pod | {name: value for name, value in optional.items() if value}


def _container(job: LoRATrainingJob, settings: Settings, trust: Trust) -> Object:
    mounts = [
        {"name": "spec", "mountPath": MOUNT, "readOnly": True},
        {"name": "work", "mountPath": training.WORK_PATH},
        {"name": "tmp", "mountPath": "/tmp"},  # noqa: S108 - a volume of the pod's own
    ]
    if trust.progress_ca:
        mounts.append({"name": "progress-token", "mountPath": TOKEN_FOLDER, "readOnly": True})
    container: Object = {
        "name": CONTAINER,
        "image": settings.trainer_image,
        "env": _env(job, settings, trust),
        "terminationMessagePath": training.TERMINATION_MESSAGE_PATH,
        "terminationMessagePolicy": "File",
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "volumeMounts": [*mounts, *json.loads(settings.trainer_volume_mounts)],
    }
    return container | ({"resources": _dumped(job.spec.resources)} if job.spec.resources is not None else {})


def _env(job: LoRATrainingJob, settings: Settings, trust: Trust) -> list[Object]:
    source, own = job.spec.dataset.source, job.metadata
    values = {
        training.ENV_JOB_UID: own.uid,
        "HOME": training.WORK_PATH,
        # torch asks for the user's name, which this uid has none of.
        "USER": "trainer",
    }
    if trust.progress_ca:
        values |= {
            "KUBEFLOW_TRAINER_SERVER_URL": training.progress_url(
                settings.progress_url, own.namespace, own.name, own.uid
            ),
            "KUBEFLOW_TRAINER_SERVER_CA_CERT": training.PROGRESS_CA_PATH,
            "KUBEFLOW_TRAINER_SERVER_TOKEN": training.PROGRESS_TOKEN_PATH,
        }
    if trust.bundle:
        values |= dict.fromkeys(("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE"), f"{MOUNT}/{CA_BUNDLE_KEY}")
    tokens = {
        training.ENV_BASE_TOKEN: job.spec.base_model.token_secret_ref,
        training.ENV_DATASET_TOKEN: source.hub.token_secret_ref if source.hub is not None else None,
        training.ENV_OUTPUT_TOKEN: job.spec.output.hub.token_secret_ref,
    }
    env: list[Object] = [{"name": name, "value": value} for name, value in values.items()]
    env += [
        {"name": name, "valueFrom": {"secretKeyRef": {"name": ref.name, "key": ref.key}}}
        for name, ref in tokens.items()
        if ref is not None
    ]
    given: Object = {
        entry["name"]: entry for entry in [*json.loads(settings.pod_env), *json.loads(settings.trainer_env)]
    }
    ours = {entry["name"] for entry in env}
    return env + [entry for name, entry in given.items() if name not in ours]


def _volumes(job: LoRATrainingJob, settings: Settings, trust: Trust) -> list[Object]:
    items = [{"key": SPEC_KEY, "path": _under(training.SPEC_PATH)}]
    if trust.progress_ca:
        items.append({"key": PROGRESS_CA_KEY, "path": _under(training.PROGRESS_CA_PATH)})
    if trust.bundle:
        items.append({"key": CA_BUNDLE_KEY, "path": CA_BUNDLE_KEY})
    sources: list[Object] = [{"configMap": {"name": run_name(job), "items": items}}]
    if (data := job.spec.dataset.source.config_map_ref) is not None:
        item = {"key": data.key, "path": f"{_under(training.DATA_PATH)}/{data.key}"}
        sources.append({"configMap": {"name": data.name, "items": [item]}})
    volumes: list[Object] = [
        {"name": "spec", "projected": {"sources": sources}},
        {"name": "work", "emptyDir": {}},
        {"name": "tmp", "emptyDir": {}},
    ]
    if trust.progress_ca:
        token = {"audience": training.PROGRESS_AUDIENCE, "expirationSeconds": TOKEN_SECONDS, "path": TOKEN_FILE}
        volumes.append({"name": "progress-token", "projected": {"sources": [{"serviceAccountToken": token}]}})
    return [*volumes, *json.loads(settings.trainer_volumes)]


def _under(path: str) -> str:
    """Return a path of the protocol as a file of the one volume at MOUNT: a volume can't be mounted within another."""
    return path.removeprefix(f"{MOUNT}/")


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
