"""The trainer's pod: what it may (little), what it is given, and where that is mounted. Pure."""

from __future__ import annotations

import json
from typing import Any, Final

from lora_operator.api.lora_training_job import LoRATrainingJob
from lora_operator.api.schema import Model
from lora_operator.api.training_run import CheckpointVolume
from lora_operator.lora_training_job.attempts import CONTAINER
from lora_operator.protocol import training
from lora_operator.settings import Settings

Object = dict[str, Any]

SPEC_KEY: Final = "spec.json"
PROGRESS_CA_KEY: Final = "progress-ca.crt"
"""Keys of the ConfigMap that the pod mounts."""
MOUNT: Final = "/etc/lora-train"
TOKEN_FOLDER, TOKEN_FILE = training.PROGRESS_TOKEN_PATH.rsplit("/", 1)
TOKEN_SECONDS: Final = 3600
UID: Final = 10001
GRACE_SECONDS: Final = 45
"""From SIGTERM to SIGKILL without checkpoints: enough to publish what is trained, short enough for a namespace to go
within a minute."""
STATE: Final = "state"
"""The volume that checkpoints are kept on."""


def data_name(config_map: str) -> str:
    """Return the name of the ConfigMap that holds the data set as it was when the spec was frozen in `config_map`."""
    return f"{config_map}-data"


def pod(job: LoRATrainingJob, config_map: str, *, settings: Settings, progress_ca: str) -> Object:
    """Return the spec of the trainer's pod; the ConfigMap holds its frozen spec."""
    spec = job.spec
    content: Object = {
        "restartPolicy": "Never",
        "terminationGracePeriodSeconds": spec.checkpoint.grace_period_seconds if spec.checkpoint else GRACE_SECONDS,
        # The trainer speaks to the Hub and to us, never to the apiserver; a tenant's data set may be hostile.
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": UID,
            "runAsGroup": UID,
            "seccompProfile": {"type": "RuntimeDefault"},
            **_owner_of_claim(job, settings),
        },
        "containers": [_container(job, settings, progress_ca)],
        "volumes": _volumes(job, config_map, settings, progress_ca),
    }
    optional = {
        "imagePullSecrets": [{"name": name} for name in settings.image_pull_secrets],
        "nodeSelector": spec.node_selector,
        "tolerations": [_dumped(toleration) for toleration in spec.tolerations or ()],
        "serviceAccountName": spec.service_account_name,
        "priorityClassName": spec.priority_class_name,
    }
    return content | {name: value for name, value in optional.items() if value}


def _owner_of_claim(job: LoRATrainingJob, settings: Settings) -> Object:
    """Let the trainer write to a claim that is root's when it is new.

    Not where the installation mounts claims of its own: kubelet would change the owner of every file of theirs.
    """
    claimed = job.spec.checkpoint is not None and job.spec.checkpoint.volume.claim_name is not None
    if not claimed or any("persistentVolumeClaim" in volume for volume in json.loads(settings.trainer_volumes)):
        return {}
    return {"fsGroup": UID, "fsGroupChangePolicy": "OnRootMismatch"}


def _container(job: LoRATrainingJob, settings: Settings, progress_ca: str) -> Object:
    mounts = [
        {"name": "spec", "mountPath": MOUNT, "readOnly": True},
        {"name": "work", "mountPath": training.WORK_PATH},
        {"name": "tmp", "mountPath": "/tmp"},  # noqa: S108 - a volume of the pod's own
    ]
    if job.spec.dataset.source.pvc is not None:
        mounts.append({"name": "dataset", "mountPath": training.CLAIM_PATH, "readOnly": True})
    if progress_ca:
        mounts.append({"name": "progress-token", "mountPath": TOKEN_FOLDER, "readOnly": True})
    if job.spec.checkpoint is not None:
        mounts.append({"name": STATE, "mountPath": training.STATE_PATH})
    container: Object = {
        "name": CONTAINER,
        "image": settings.trainer_image,
        "env": _env(job, settings, progress_ca),
        "terminationMessagePath": training.TERMINATION_MESSAGE_PATH,
        "terminationMessagePolicy": "File",
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "volumeMounts": [*mounts, *json.loads(settings.trainer_volume_mounts)],
    }
    given = job.spec.resources
    resources = _dumped(given) if given is not None else json.loads(settings.trainer_resources)
    if job.spec.checkpoint is not None:
        # By the uid: jobs may share a claim, and another job of the same name is another training.
        container["args"] = ["--output", f"{training.STATE_PATH}/{job.metadata.uid}"]
    return container | ({"resources": resources} if resources else {})


def _env(job: LoRATrainingJob, settings: Settings, progress_ca: str) -> list[Object]:
    source, start, own = job.spec.dataset.source, job.spec.lora.init_from, job.metadata
    values = {
        training.ENV_JOB_UID: own.uid,
        "HOME": training.WORK_PATH,
        # torch asks for the user's name, which this uid has none of.
        "USER": "trainer",
    }
    if progress_ca:
        values |= {
            "KUBEFLOW_TRAINER_SERVER_URL": training.progress_url(
                settings.progress_url, own.namespace, own.name, own.uid
            ),
            "KUBEFLOW_TRAINER_SERVER_CA_CERT": training.PROGRESS_CA_PATH,
            "KUBEFLOW_TRAINER_SERVER_TOKEN": training.PROGRESS_TOKEN_PATH,
        }
    tokens = {
        training.ENV_BASE_TOKEN: job.spec.base_model.token_secret_ref,
        training.ENV_DATASET_TOKEN: source.hub.token_secret_ref if source.hub is not None else None,
        training.ENV_ADAPTER_TOKEN: start.hub.token_secret_ref if start is not None and start.hub is not None else None,
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


def _volumes(job: LoRATrainingJob, config_map: str, settings: Settings, progress_ca: str) -> list[Object]:
    items = [{"key": SPEC_KEY, "path": _under(training.SPEC_PATH)}]
    if progress_ca:
        items.append({"key": PROGRESS_CA_KEY, "path": _under(training.PROGRESS_CA_PATH)})
    sources: list[Object] = [{"configMap": {"name": config_map, "items": items}}]
    if (data := job.spec.dataset.source.config_map_ref) is not None:
        item = {"key": data.key, "path": f"{_under(training.DATA_PATH)}/{data.key}"}
        sources.append({"configMap": {"name": data_name(config_map), "items": [item]}})
    volumes: list[Object] = [
        {"name": "spec", "projected": {"sources": sources}},
        {"name": "work", "emptyDir": {}},
        {"name": "tmp", "emptyDir": {}},
    ]
    if (pvc := job.spec.dataset.source.pvc) is not None:
        claim = {"claimName": pvc.claim_name, "readOnly": True}
        volumes.append({"name": "dataset", "persistentVolumeClaim": claim})
    if progress_ca:
        token = {"audience": training.PROGRESS_AUDIENCE, "expirationSeconds": TOKEN_SECONDS, "path": TOKEN_FILE}
        volumes.append({"name": "progress-token", "projected": {"sources": [{"serviceAccountToken": token}]}})
    if job.spec.checkpoint is not None:
        volumes.append({"name": STATE, **_state(job.spec.checkpoint.volume)})
    return [*volumes, *json.loads(settings.trainer_volumes)]


def _state(volume: CheckpointVolume) -> Object:
    if volume.claim_name is not None:
        return {"persistentVolumeClaim": {"claimName": volume.claim_name}}
    return {"emptyDir": _dumped(volume.empty_dir) if volume.empty_dir is not None else {}}


def _under(path: str) -> str:
    """Return a path of the protocol as a file of the one volume at MOUNT: a volume can't be mounted within another."""
    return path.removeprefix(f"{MOUNT}/")


def _dumped(model: Model) -> Object:
    return model.model_dump(mode="json", by_alias=True, exclude_none=True)
