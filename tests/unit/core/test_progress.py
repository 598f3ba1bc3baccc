"""The progress endpoint: who may report, about which training job, and what an apiserver is asked for it."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest
from aiohttp import ClientSession, TCPConnector, web

from lora_operator.labels import TRAINING_JOB, Key
from lora_operator.progress import BODY_LIMIT, POD_NAME, POD_UID, progress_endpoint
from lora_operator.progress_certificate import authority, new_authority, server_context
from lora_operator.protocol.training import PROGRESS_AUDIENCE, progress_url
from lora_operator.settings import Settings
from support import samples
from support.memory_world import NOW, MemoryKube, TrainingWorld, make_world

Object = dict[str, Any]
KEY = Key("LoRATrainingJob", "default", "support-v1")
BODY = {"trainerStatus": {"progressPercentage": 40, "metrics": [{"name": "loss", "value": "0.5"}], "new": "field"}}


class ReviewingKube(MemoryKube):
    """Knows one token by the pod that it is bound to."""

    pod: str = "pod-1"
    uid: str = "uid-Pod-pod-1"
    namespace: str = "default"
    reviews: int = 0

    async def create(self, obj: Object) -> Object:
        if obj["kind"] != "TokenReview":
            return await super().create(obj)
        self.reviews += 1
        if obj["spec"]["token"] != "good" or obj["spec"]["audiences"] != [PROGRESS_AUDIENCE]:
            return obj | {"status": {"authenticated": False}}
        extra = {POD_NAME: [self.pod], POD_UID: [self.uid]}
        user = {"username": f"system:serviceaccount:{self.namespace}:default", "extra": extra}
        return obj | {"status": {"authenticated": True, "audiences": [PROGRESS_AUDIENCE], "user": user}}


def owned(kind: str, name: str, by: str, **more: Any) -> Object:
    metadata = {
        "name": name,
        "namespace": "default",
        "labels": {TRAINING_JOB: "support-v1"},
        "ownerReferences": [{"uid": by, "controller": True}],
    }
    return {"apiVersion": "v1", "kind": kind, "metadata": metadata | more}


@pytest.fixture
def ground() -> TrainingWorld:
    plain = make_world(Settings(progress_url="https://127.0.0.1"))
    kube = ReviewingKube(plain.store)
    ground = replace(plain, kube=kube, world=replace(plain.world, kube=kube))
    kube.put(samples.training_job("support-v1"))
    kube.put(owned("Job", "run", "uid-LoRATrainingJob-support-v1"))
    kube.put(owned("Pod", "pod-1", "uid-Job-run"))
    return ground


@pytest.fixture
async def reporter(ground: TrainingWorld) -> AsyncIterator[Any]:
    """Serve the endpoint over TLS, and yield a function that posts to it and returns the status."""
    endpoint = await progress_endpoint(ground.world)
    assert endpoint is not None
    runner = web.AppRunner(endpoint.application)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=endpoint.tls)
    await site.start()
    port = runner.addresses[0][1]
    trust = ssl.create_default_context(cadata=(await authority(ground.world)).certificate)

    async def post(**more: Any) -> int:
        token, uid = more.pop("token", "good"), more.pop("uid", "uid-LoRATrainingJob-support-v1")
        url = progress_url(f"https://127.0.0.1:{port}", "default", more.pop("name", "support-v1"), uid)
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        sent = more or {"json": BODY}
        async with (
            ClientSession(connector=TCPConnector(ssl=trust)) as session,
            session.post(url, headers=headers, **sent) as answer,
        ):
            return answer.status

    yield post
    await runner.cleanup()


async def test_a_trainer_s_report_reaches_the_pass(ground: TrainingWorld, reporter: Any) -> None:
    assert await reporter() == 200

    assert ground.world.progress[KEY].progress_percentage == 40
    assert ground.woken == [KEY]


async def test_a_token_is_reviewed_once_a_minute(ground: TrainingWorld, reporter: Any) -> None:
    await reporter()
    await reporter()
    assert ground.kube.reviews == 1  # type: ignore[attr-defined]

    ground.clock.pass_by(61)
    await reporter()

    assert ground.kube.reviews == 2  # type: ignore[attr-defined]


@pytest.mark.parametrize("token", ["", "bad", "x" * 20_000])
async def test_without_a_token_that_is_good_here_nobody_reports(
    ground: TrainingWorld, reporter: Any, token: str
) -> None:
    # aiohttp itself refuses headers of this length with 400.
    assert await reporter(token=token) in ({401} if len(token) < 100 else {400, 401})
    assert ground.world.progress == {}


@pytest.mark.parametrize(
    ("field", "value"), [("pod", "pod-2"), ("uid", "uid-of-a-namesake"), ("namespace", "team-b"), ("pod", "impostor")]
)
async def test_another_pod_reports_nothing(ground: TrainingWorld, reporter: Any, field: str, value: str) -> None:
    ground.kube.put(owned("Pod", "impostor", "uid-of-another-job", uid="uid-Pod-pod-1"))
    setattr(ground.kube, field, value)

    assert await reporter() == 403

    assert ground.world.progress == {}


async def test_a_job_that_only_bears_the_label_reports_nothing(ground: TrainingWorld, reporter: Any) -> None:
    ground.kube.put(owned("Job", "run", "uid-of-something-else"))

    assert await reporter() == 403


@pytest.mark.parametrize("where", [{"name": "support-v2"}, {"uid": "uid-of-a-namesake"}])
async def test_a_training_job_that_is_not_there_is_told(reporter: Any, where: Object) -> None:
    assert await reporter(**where, json=BODY) == 404


async def test_a_body_that_is_too_long_is_refused(reporter: Any) -> None:
    assert await reporter(data=b"x" * (BODY_LIMIT + 1)) == 413


@pytest.mark.parametrize("body", [b"", b"[]", b'{"trainerStatus": {"progressPercentage": 200}}'])
async def test_a_body_that_says_nothing_is_refused(ground: TrainingWorld, reporter: Any, body: bytes) -> None:
    assert await reporter(data=body) == 400
    assert ground.world.progress == {}


async def test_without_a_url_there_is_no_endpoint() -> None:
    assert await progress_endpoint(make_world(Settings()).world) is None


async def test_the_authority_is_made_once_and_outlives_the_operator() -> None:
    ground = make_world()

    first = await authority(ground.world)

    assert await authority(ground.restarted().world) == first


async def test_a_certificate_names_the_host_of_the_url() -> None:
    signer = new_authority(NOW)

    context = server_context(signer, host="lora-operator.lora-system.svc", now=NOW)

    assert isinstance(context, ssl.SSLContext)
    assert context.minimum_version >= ssl.TLSVersion.TLSv1_2
