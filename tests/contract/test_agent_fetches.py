"""The agent where the Hub does not give what was pinned: each ends in a state, a reason and the field to change."""

from __future__ import annotations

from pathlib import Path

import pytest

import hubserver
from lora_operator.protocol import door
from lora_operator.protocol.door import State
from support import agents, fake_engine
from support.adapters import make_adapter
from support.agents import Pod


async def test_a_file_that_is_not_what_was_pinned_is_refused(
    pod: Pod, hub: hubserver.Hub, engine: fake_engine.Engine
) -> None:
    tampered = agents.published_entry(hub)
    hub.tamper("acme/support", "adapter_model.safetensors")
    async with pod.run():
        await pod.push(tampered)
        failed = await pod.reaches(tampered.engine_name, State.FAILED, reason="DigestMismatch")
        assert "adapter_model.safetensors" in failed.message
        assert not engine.calls("/v1/load_lora_adapter")


async def test_a_hub_that_fails_for_a_while_is_waited_for(
    pod: Pod, hub: hubserver.Hub, engine: fake_engine.Engine
) -> None:
    wanted = agents.published_entry(hub)
    hub.fault("safetensors", status=503, times=-1)
    async with pod.run():
        await pod.push(wanted)
        waiting = await pod.reaches(wanted.engine_name, State.FETCHING, reason="HubUnavailable")
        assert "503" in waiting.message
        assert waiting.retry_seconds is not None
        hub.clear_faults()
        await pod.reaches(wanted.engine_name, State.LOADED)


async def test_a_hub_that_breaks_off_is_asked_again(pod: Pod, hub: hubserver.Hub) -> None:
    wanted = agents.published_entry(hub)
    hub.fault("/_lfs/", cut_after_bytes=1000, times=1)
    async with pod.run():
        await pod.push(wanted)
        await pod.reaches(wanted.engine_name, State.LOADED)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        pytest.param({"repo": "acme/nothing"}, "RepositoryNotFound", id="no such repository"),
        pytest.param({"commit": "0" * 40}, "RevisionNotFound", id="no such commit"),
    ],
)
async def test_what_the_hub_does_not_have_is_told(
    pod: Pod, hub: hubserver.Hub, change: dict[str, str], reason: str
) -> None:
    there = agents.published_entry(hub)
    lost = there.model_copy(update={"hub": there.hub.model_copy(update=change)})
    async with pod.run():
        await pod.push(lost)
        failed = await pod.reaches(lost.engine_name, State.FAILED)
        assert failed.reason in {reason, "HubUnauthorized"}
        assert lost.hub.repo in failed.message
        assert "spec.source.hub." in failed.message


@pytest.mark.parametrize(
    ("status", "reason", "field"),
    [
        pytest.param(401, "HubUnauthorized", "spec.source.hub.tokenSecretRef", id="401"),
        pytest.param(404, "RepositoryNotFound", "spec.source.hub.repo", id="404"),
        pytest.param(418, "HubRefused", "spec.source.hub.repo", id="anything"),
    ],
)
async def test_what_the_hub_refuses_names_the_field_to_change(
    pod: Pod, hub: hubserver.Hub, status: int, reason: str, field: str
) -> None:
    wanted = agents.published_entry(hub)
    hub.fault("safetensors", status=status, times=-1)
    async with pod.run():
        await pod.push(wanted)
        failed = await pod.reaches(wanted.engine_name, State.FAILED, reason=reason)
        assert field in failed.message


async def test_a_base_that_the_hub_hides_names_the_fields_to_change(
    hub: hubserver.Hub, engine: fake_engine.Engine, tmp_path: Path
) -> None:
    wanted = agents.published_entry(hub)
    hub.fault("config.json", status=404, times=-1)
    async with agents.running(tmp_path, engine_url=engine.url, hub_url=hub.url) as pod:
        await pod.push(wanted)
        pending = await pod.until(lambda report: "no such repository" in str(report.entries))
        assert "spec.baseModel" in pending.entries[0].message
        assert "tokenSecretRef" in pending.entries[0].message


async def test_a_private_adapter_waits_for_its_token_and_is_fetched_with_it(pod: Pod, hub: hubserver.Hub) -> None:
    files = make_adapter()
    key = door.credential_key("team-a", "hf", "token")
    source = agents.publish(hub, "acme/private", files, private=True).model_copy(update={"credential": key})
    private = agents.entry_for(files, source)
    async with pod.run():
        await pod.push(private)
        await pod.reaches(private.engine_name, State.WAITING_FOR_CREDENTIALS)
        pod.mount_secret({key: "hf_wrong"})
        failed = await pod.reaches(private.engine_name, State.FAILED)
        assert failed.reason in {"HubUnauthorized", "RepositoryNotFound"}
        assert "spec.source.hub.tokenSecretRef" in failed.message
        assert "hf_wrong" not in failed.message
        pod.mount_secret({key: "hf_write\n"})
        await pod.reaches(private.engine_name, State.LOADED)


async def test_a_download_that_nobody_wants_any_more_is_stopped(pod: Pod, hub: hubserver.Hub) -> None:
    wanted = agents.published_entry(hub)
    hub.fault("/_lfs/", delay_seconds=600, times=1)
    async with pod.run():
        await pod.push(wanted)
        await pod.until(lambda _: any("/_lfs/" in record.path for record in hub.requests))
        await pod.push()
        await pod.gone(wanted.engine_name)
        assert not list((pod.volume / ".fetch").iterdir())


async def test_a_token_that_no_header_can_carry_is_refused_by_its_field(pod: Pod, hub: hubserver.Hub) -> None:
    files = make_adapter()
    key = door.credential_key("team-a", "hf", "token")
    source = agents.publish(hub, "acme/private", files, private=True).model_copy(update={"credential": key})
    private = agents.entry_for(files, source)
    pod.mount_secret({key: "hf_caf\N{LATIN SMALL LETTER E WITH ACUTE}\nx"})
    async with pod.run():
        await pod.push(private)
        failed = await pod.reaches(private.engine_name, State.FAILED, reason="TokenMalformed")
        assert "spec.source.hub.tokenSecretRef" in failed.message
        assert "hf_caf" not in failed.message


async def test_a_repository_s_name_that_the_hub_does_not_take_is_refused_by_its_field(
    pod: Pod, hub: hubserver.Hub
) -> None:
    there = agents.published_entry(hub)
    lost = there.model_copy(update={"hub": there.hub.model_copy(update={"repo": "a/b/c"})})
    async with pod.run():
        await pod.push(lost)
        failed = await pod.reaches(lost.engine_name, State.FAILED, reason="RepositoryNotFound")
        assert "spec.source.hub.repo" in failed.message
