"""The agent's door and its readiness, knocked at as the operator and kubelet do."""

from __future__ import annotations

import asyncio
import datetime as dt
import ssl
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

import hubserver
from lora_operator.clients.door import Access, DoorError, Doors
from lora_operator.protocol import door
from lora_operator.protocol.door import Base, State
from lora_operator.protocol.manifest import Entry, Shard
from support import agents, fake_engine
from support.adapters import TINY_LLAMA, make_adapter


@pytest.fixture
async def engine() -> AsyncIterator[fake_engine.Engine]:
    async with fake_engine.serve() as engine:
        yield engine


def entry(hub: hubserver.Hub, *, seed: int = 0) -> Entry:
    files = make_adapter(seed=seed)
    return agents.entry_for(files, agents.publish(hub, "acme/support", files))


def certificate() -> tuple[str, str]:
    """Return a certificate and its key in PEM, as the operator makes them."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "engine")])
    now = dt.datetime.now(dt.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    private = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return made.public_bytes(pem).decode(), private.decode()


@pytest.mark.parametrize("token", ["", "wrong"])
async def test_without_the_token_nothing_is_told_or_taken(
    hub: hubserver.Hub, engine: fake_engine.Engine, tmp_path: Path, token: str
) -> None:
    async with agents.running(tmp_path, engine_url=engine.url, hub_url=hub.url) as pod:
        for method, path in (("GET", "/v1/report"), ("GET", "/v1/base"), ("PUT", "/v1/shards/0")):
            assert (await pod.call(method, path, token=token))[0] == 401
        assert (await pod.call("GET", "/healthz", token=token))[0] == 200


async def test_without_a_secret_the_door_admits_nobody_but_kubelet_and_the_mounted_manifest_is_held(
    hub: hubserver.Hub, engine: fake_engine.Engine, tmp_path: Path
) -> None:
    agents.publish_base(hub)
    wanted = entry(hub)
    pod = agents.pod(tmp_path, engine_url=engine.url, hub_url=hub.url)
    for shard in pod.shards(wanted):
        pod.mount(shard)
    async with pod.run():
        await agents.eventually(pod.is_ready)
        assert engine.adapters.keys() == {wanted.engine_name}
        assert (await pod.call("GET", "/v1/report", token=""))[0] == 401
        pod.mount_secret()
        await agents.eventually(lambda: _admitted(pod))


async def test_the_operators_own_client_is_served_under_the_certificate_that_it_pins(
    hub: hubserver.Hub, engine: fake_engine.Engine, tmp_path: Path
) -> None:
    agents.publish_base(hub)
    wanted = entry(hub)
    pinned, key = certificate()
    async with agents.running(tmp_path, engine_url=engine.url, hub_url=hub.url) as pod:
        doors = Doors(port=pod.port)
        access = Access(certificate=pinned, token=agents.TOKEN)
        try:
            # Before the Secret's certificate is there it is another one, and the operator tells nobody its token.
            with pytest.raises(DoorError):
                await doors.report("127.0.0.1", access, heard=None, wait=0)
            pod.mount_secret({door.CERT_KEY: pinned, door.PRIVATE_KEY_KEY: key})
            for shard in pod.shards(wanted):
                await agents.eventually(partial(_pushed, doors, access, shard))
            report = await doors.report("127.0.0.1", access, heard=None, wait=0)
            while not report.entries or report.entries[0].state is not State.LOADED:
                report = await doors.report("127.0.0.1", access, heard=report, wait=5)
            assert report.engine.served == ("base",)
            assert report.engine.version == fake_engine.VERSION
            base = await doors.base("127.0.0.1", access)
            assert base == Base(name=agents.BASE, config=TINY_LLAMA.config())
        finally:
            await doors.close()


async def _pushed(doors: Doors, access: Access, shard: Shard) -> bool:
    try:
        await doors.push("127.0.0.1", access, shard)
    except DoorError:
        return False
    return True


async def test_a_certificate_that_changes_is_served_to_the_next_caller(
    hub: hubserver.Hub, engine: fake_engine.Engine, tmp_path: Path
) -> None:
    async with agents.running(tmp_path, engine_url=engine.url, hub_url=hub.url) as pod:
        for _ in range(2):
            pinned, key = certificate()
            pod.mount_secret({door.CERT_KEY: pinned, door.PRIVATE_KEY_KEY: key})
            await agents.eventually(partial(_serves, pod.port, ssl.PEM_cert_to_DER_cert(pinned)))


async def _admitted(pod: agents.Pod) -> bool:
    return (await pod.call("GET", "/v1/report"))[0] == 200


async def _serves(port: int, certificate: bytes) -> bool:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context)
    served: bytes | None = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
    writer.close()
    await writer.wait_closed()
    return served == certificate


@pytest.mark.parametrize("body", ["", "{}", '{"version": 2, "index": 0, "revision": 1}', '{"index": 1, "revision": 1}'])
async def test_a_shard_that_cannot_be_read_is_refused_and_changes_nothing(
    hub: hubserver.Hub, engine: fake_engine.Engine, tmp_path: Path, body: str
) -> None:
    async with agents.running(tmp_path, engine_url=engine.url, hub_url=hub.url) as pod:
        assert (await pod.call("PUT", "/v1/shards/0", body=body))[0] == 400
        assert (await pod.report()).shards == {}


async def test_a_report_is_answered_when_something_changes_and_not_before(
    hub: hubserver.Hub, engine: fake_engine.Engine, tmp_path: Path
) -> None:
    agents.publish_base(hub)
    async with agents.running(tmp_path, engine_url=engine.url, hub_url=hub.url) as pod:
        now = await pod.until(lambda report: report.engine.healthy and report.base_known)
        assert (await pod.report(heard=now, wait=0.3)).sequence == now.sequence
        asking = asyncio.create_task(pod.report(heard=now, wait=50))
        await pod.push(revision=5)
        assert (await asking).sequence > now.sequence


async def test_a_pod_without_adapters_is_ready_with_its_engine(hub: hubserver.Hub, tmp_path: Path) -> None:
    async with (
        fake_engine.serve() as engine,
        agents.running(tmp_path, engine_url=engine.url, hub_url=hub.url) as pod,
    ):
        assert await pod.is_ready()


async def test_a_new_pod_is_not_ready_before_it_has_its_adapters(
    hub: hubserver.Hub, engine: fake_engine.Engine, tmp_path: Path
) -> None:
    agents.publish_base(hub)
    wanted = entry(hub)
    pod = agents.pod(tmp_path, engine_url=engine.url, hub_url=hub.url)
    pod.mount_secret()
    for shard in pod.shards(wanted):
        pod.mount(shard)
    hub.fault("/_lfs/", delay_seconds=600, times=1)
    async with pod.run():
        await pod.reaches(wanted.engine_name, State.FETCHING)
        assert not await pod.is_ready()
        hub.clear_faults()
        await pod.until(lambda report: report.ready)
        await pod.reaches(wanted.engine_name, State.LOADED)


async def test_with_the_hub_down_a_new_pod_is_ready_after_the_time_limit_and_gets_its_adapter_later(
    hub: hubserver.Hub, engine: fake_engine.Engine, tmp_path: Path
) -> None:
    wanted = entry(hub)
    agents.publish_base(hub)
    hub.fault(".*", status=503, times=-1)
    pod = agents.pod(tmp_path, engine_url=engine.url, hub_url=hub.url, ready_timeout_seconds=3)
    pod.mount_secret()
    for shard in pod.shards(wanted):
        pod.mount(shard)
    async with pod.run():
        assert not await pod.is_ready()
        report = await pod.until(lambda report: report.ready)
        assert report.entries[0].state is not State.LOADED
        hub.clear_faults()
        await pod.reaches(wanted.engine_name, State.LOADED)


async def test_readiness_drops_while_a_restarted_engine_is_refilled(
    hub: hubserver.Hub, engine: fake_engine.Engine, tmp_path: Path
) -> None:
    agents.publish_base(hub)
    wanted = entry(hub)
    async with agents.running(tmp_path, engine_url=engine.url, hub_url=hub.url) as pod:
        await pod.push(wanted)
        await pod.until(lambda report: report.ready and report.entries)
        await pod.reaches(wanted.engine_name, State.LOADED)
        await engine.stop()
        await pod.until(lambda report: not report.ready and not report.engine.healthy)
        engine.fault("/v1/load_lora_adapter", hang=True)
        await engine.start()
        await pod.until(lambda _: engine.in_flight.get("/v1/load_lora_adapter"))
        assert not await pod.is_ready()
        engine.clear_faults()
        await pod.reaches(wanted.engine_name, State.LOADED)
        assert await pod.is_ready()


async def test_a_refill_that_never_ends_keeps_the_base_out_no_longer_than_the_time_limit(
    hub: hubserver.Hub, engine: fake_engine.Engine, tmp_path: Path
) -> None:
    agents.publish_base(hub)
    wanted = entry(hub)
    async with agents.running(tmp_path, engine_url=engine.url, hub_url=hub.url, ready_timeout_seconds=3) as pod:
        await pod.push(wanted)
        await pod.reaches(wanted.engine_name, State.LOADED)
        await engine.stop()
        await pod.until(lambda report: not report.ready)
        engine.fault("/v1/load_lora_adapter", hang=True, times=-1)
        await engine.start()
        await pod.until(lambda report: report.ready)
        assert not engine.adapters


async def test_an_agent_that_restarts_while_the_engine_is_well_stays_ready(
    hub: hubserver.Hub, engine: fake_engine.Engine, tmp_path: Path
) -> None:
    agents.publish_base(hub)
    pod = agents.pod(tmp_path, engine_url=engine.url, hub_url=hub.url)
    pod.mount_secret()
    wanted = entry(hub)
    async with pod.run():
        await pod.push(wanted)
        await pod.reaches(wanted.engine_name, State.LOADED)
    hub.fault(".*", status=503, times=-1)
    new = entry(hub, seed=1)
    for shard in pod.shards(wanted, new):
        pod.mount(shard)
    async with pod.run():
        # Also with something new that it can't get.
        assert await pod.is_ready()
