"""Plays scheduler and kubelet for trainers' pods where there are no nodes: the Job controller is the real one.

Pods are never bound, so that deleting one takes nobody's leave; what a kubelet would write into their status is
written here.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from localcluster import ControlPlane
from lora_operator.labels import TRAINING_JOB
from lora_operator.protocol.training import Artifact, ExitCode, Reason, Result
from support.apiserver import ApiServer, RefusedError, collection

Object = dict[str, Any]
CONTAINER = "trainer"


@dataclass(frozen=True)
class Ending:
    """How a trainer's container ends."""

    exit_code: int
    message: str = ""
    reason: str = ""


def publishing(repo: str, commit: str, *, digest: str = "sha256:" + "0" * 64) -> Ending:
    """Return the end of a trainer that has published."""
    artifact = Artifact(repo=repo, commit=commit, digest=digest, size_bytes=1234)
    result = Result(
        reason=Reason.PUBLISHED, message="60 steps, loss 0.5", artifact=artifact, steps=60, metrics={"loss": "0.5"}
    )
    return Ending(ExitCode.OK, result.model_dump_json(by_alias=True, exclude_none=True))


OUT_OF_MEMORY = Ending(137, reason="OOMKilled")


@dataclass(frozen=True)
class JobActor:
    """The actor of one namespace."""

    plane: ControlPlane
    namespace: str

    @property
    def _api(self) -> ApiServer:
        return ApiServer(self.plane)

    def pods(self, training_job: str = "") -> list[Object]:
        """Return the trainers' pods that are there, the oldest first."""
        selector = f"{TRAINING_JOB}={training_job}" if training_job else TRAINING_JOB
        found = json.loads(self.plane.run_kubectl("get", "pods", "-n", self.namespace, "-l", selector, "-o", "json"))
        pods: list[Object] = sorted(found["items"], key=lambda pod: pod["metadata"]["creationTimestamp"])
        return pods

    def waiting(self, pod: Object, reason: str, message: str) -> None:
        """Let the pod's container wait, as for an image."""
        self._patch(pod, "Pending", {"waiting": {"reason": reason, "message": message}})

    def run(self, pod: Object) -> None:
        """Let the pod's container run."""
        self._patch(pod, "Running", {"running": {"startedAt": _now()}})

    def end(self, pod: Object, ending: Ending) -> None:
        """Let the pod's container end."""
        failed = ending.exit_code != 0
        terminated = {
            "exitCode": ending.exit_code,
            "reason": ending.reason or ("Error" if failed else "Completed"),
            "message": ending.message,
            "startedAt": _now(),
            "finishedAt": _now(),
        }
        self._patch(pod, "Failed" if failed else "Succeeded", {"terminated": terminated})

    @contextmanager
    def ending_every_pod(self, ending: Callable[[Object], Ending | None]) -> Iterator[None]:
        """End every pod of a training as `ending` says (None: not yet), in the background, for a with-block."""
        stop = threading.Event()

        def act() -> None:
            while not stop.wait(0.3):
                for pod in self.pods():
                    if pod["status"].get("phase") in {"Succeeded", "Failed"} or "deletionTimestamp" in pod["metadata"]:
                        continue
                    if (end := ending(pod)) is not None:
                        self.end(pod, end)

        thread = threading.Thread(target=act, name="job-actor")
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()

    def _patch(self, pod: Object, phase: str, state: Object) -> None:
        pod = pod | {"apiVersion": "v1", "kind": "Pod"}
        container = {
            "name": CONTAINER,
            "image": "image",
            "imageID": "",
            "ready": "running" in state,
            "restartCount": 0,
            "state": state,
        }
        path = f"{collection(pod)}/{pod['metadata']['name']}/status"
        status = {"phase": phase, "startTime": _now(), "containerStatuses": [container]}
        try:
            self._api.call("PATCH", path, {"status": status}, media="application/merge-patch+json")
        except RefusedError as refused:
            # Deleted in between: there is nobody left whose end could be told.
            if "not found" not in str(refused):
                raise


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
