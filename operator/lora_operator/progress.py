"""The progress endpoint: what transformers' KubeflowCallback posts, taken in on https from the trainer's own pod alone.

The token is looked at by the apiserver (TokenReview), which names the pod that it is bound to; that pod has to belong
to the Job of the training job in the path. What is said ends up in `world.progress`; losing all of it changes nothing.
"""

from __future__ import annotations

import asyncio
import hashlib
import ssl
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final, NamedTuple
from urllib.parse import urlsplit

from aiohttp import web
from pydantic import ValidationError

from lora_operator import progress_certificate
from lora_operator.labels import Key
from lora_operator.protocol.training import PROGRESS_AUDIENCE, PROGRESS_ROUTE, Progress
from lora_operator.world import World

Object = dict[str, Any]

BODY_LIMIT: Final = 64 << 10
TOKEN_LIMIT: Final = 16 << 10
REVIEW_LIFE: Final = timedelta(seconds=60)
"""How long an answer of the apiserver about a token is taken to stand: a trainer reports every five seconds."""
REMEMBERED: Final = 1000
REVIEWS_AT_ONCE: Final = 4
POD_NAME: Final = "authentication.kubernetes.io/pod-name"
POD_UID: Final = "authentication.kubernetes.io/pod-uid"


@dataclass(frozen=True)
class Endpoint:
    """What to listen with."""

    application: web.Application
    tls: ssl.SSLContext


class Caller(NamedTuple):
    """The pod that a token is bound to."""

    namespace: str
    pod: str
    uid: str


async def progress_endpoint(world: World) -> Endpoint | None:
    """Return the endpoint; None where the operator was installed without one."""
    host = urlsplit(world.settings.progress_url).hostname
    if host is None:
        return None
    signer = await progress_certificate.authority(world)
    application = web.Application(client_max_size=BODY_LIMIT)
    application.add_routes([web.post(PROGRESS_ROUTE, Reports(world).take)])
    return Endpoint(application, progress_certificate.server_context(signer, host=host, now=world.now()))


class Reports:
    """Takes progress reports in. Remembers for a moment whom a token belongs to."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._known: OrderedDict[bytes, tuple[Caller, datetime]] = OrderedDict()
        self._reviews = asyncio.Semaphore(REVIEWS_AT_ONCE)

    async def take(self, request: web.Request) -> web.Response:
        """Answer one POST: 401 without a token that is good here, 403 from another pod, 404 for another job."""
        caller = await self._caller(request.headers.get("Authorization", ""))
        if caller is None:
            raise web.HTTPUnauthorized(text=f"a token of audience {PROGRESS_AUDIENCE}, bound to a pod, is needed")
        key = Key("LoRATrainingJob", request.match_info["namespace"], request.match_info["name"])
        if caller.namespace != key.namespace:
            raise web.HTTPForbidden(text="the token's pod is of another namespace")
        job = self._world.store.get(key)
        if job is None or job["metadata"]["uid"] != request.match_info["uid"]:
            raise web.HTTPNotFound(text="there is no such training job")
        if not self._trains(caller, key, job):
            raise web.HTTPForbidden(text="the token's pod is no trainer of this training job")
        try:
            progress = Progress.model_validate_json(await request.read())
        except ValidationError:
            raise web.HTTPBadRequest(text="the body is no trainerStatus") from None
        self._world.progress[key] = progress.trainer_status
        self._world.wake(key)
        return web.Response()

    def _trains(self, caller: Caller, key: Key, job: Object) -> bool:
        """Tell whether the pod is controlled by a Job that the training job controls: labels alone anybody can set."""
        pod = self._world.store.get(Key("Pod", caller.namespace, caller.pod))
        if pod is None or pod["metadata"]["uid"] != caller.uid:
            return False
        runs = self._world.store.referring("Job", "job", key)
        ours = {run["metadata"]["uid"] for run in runs if _controller(run) == job["metadata"]["uid"]}
        return _controller(pod) in ours

    async def _caller(self, authorization: str) -> Caller | None:
        scheme, _, token = authorization.partition(" ")
        if scheme.lower() != "bearer" or not token or len(token) > TOKEN_LIMIT:
            return None
        digest = hashlib.sha256(token.encode()).digest()
        known = self._known.get(digest)
        if known is not None and known[1] > self._world.now():
            return known[0]
        async with self._reviews:
            review = await self._world.kube.create(_review(token))
        caller = _bound_to(review.get("status") or {})
        if caller is not None:
            self._known[digest] = (caller, self._world.now() + REVIEW_LIFE)
            self._known.move_to_end(digest)
            if len(self._known) > REMEMBERED:
                self._known.popitem(last=False)
        return caller


def _review(token: str) -> Object:
    return {
        "apiVersion": "authentication.k8s.io/v1",
        "kind": "TokenReview",
        "metadata": {},
        "spec": {"token": token, "audiences": [PROGRESS_AUDIENCE]},
    }


def _bound_to(status: Mapping[str, Any]) -> Caller | None:
    if not status.get("authenticated") or PROGRESS_AUDIENCE not in (status.get("audiences") or []):
        return None
    user = status.get("user") or {}
    extra = user.get("extra") or {}
    system, _, account = user.get("username", "").partition("serviceaccount:")
    pods, uids = extra.get(POD_NAME) or [], extra.get(POD_UID) or []
    if system != "system:" or len(pods) != 1 or len(uids) != 1:
        return None
    return Caller(account.partition(":")[0], pods[0], uids[0])


def _controller(obj: Object) -> str | None:
    owners = obj["metadata"].get("ownerReferences") or []
    return next((owner["uid"] for owner in owners if owner.get("controller")), None)
