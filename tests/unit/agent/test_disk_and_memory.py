"""The adapters volume, the shards and the memory on it, the Secret, the settings: what is read, kept and refused."""

from __future__ import annotations

import errno
import json
import logging
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest

from lora_agent.disk import Disk, NoSpace, write_whole
from lora_agent.life import Life
from lora_agent.logs import JsonFormatter
from lora_agent.memory import Memory
from lora_agent.secret import Secret
from lora_agent.settings import Settings, SettingsError
from lora_agent.shards import Shards
from lora_operator.protocol import door
from lora_operator.protocol.manifest import Shard

HEX = "a" * 64


@pytest.fixture
def full_disk(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Return what fills the disk: no new file or directory fits; `monkeypatch.undo` makes room."""

    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    def fill() -> None:
        for make in ("mkstemp", "mkdtemp"):
            monkeypatch.setattr(tempfile, make, refuse)

    return fill


def test_what_was_not_published_is_gone_after_a_restart_and_its_bytes_are_free_again(tmp_path: Path) -> None:
    disk = Disk(tmp_path, budget=100)
    with disk.reserve(60) as place:
        (place / "weights").write_bytes(b"x" * 60)
        with pytest.raises(NoSpace, match="60 of the 100"), disk.reserve(41):
            pass
        disk.publish(place, HEX)
    assert disk.published == {HEX}
    (tmp_path / ".fetch" / "half").mkdir()
    again = Disk(tmp_path, budget=100)
    assert again.published == {HEX}
    assert not list((tmp_path / ".fetch").iterdir())
    with pytest.raises(NoSpace), again.reserve(41):
        pass
    again.hide(HEX)
    with again.reserve(100):
        assert not again.path(HEX).exists()


def test_a_disk_with_less_room_than_the_budget_is_not_filled(tmp_path: Path) -> None:
    with pytest.raises(NoSpace, match="the node's disk"), Disk(tmp_path, budget=10**18).reserve(10**17):
        pass


def test_memory_outlives_the_agent_but_not_the_pod(tmp_path: Path) -> None:
    life = Life(healthy_since=3.5, answered=frozenset({"a"}), refill=frozenset({"b"}), loads=7)
    Memory(tmp_path, pod_uid="one").keep(ready=True, life=life, hexes={"a": HEX})
    same = Memory(tmp_path, pod_uid="one").last
    assert (same.ready, same.life, same.hexes) == (True, life, {"a": HEX})
    other = Memory(tmp_path, pod_uid="two").last
    assert (other.ready, other.life, other.hexes) == (False, Life(), {"a": HEX})


def test_a_write_that_fails_leaves_the_old_text_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "pod.json"
    write_whole(path, "old")
    with pytest.raises(UnicodeEncodeError):
        write_whole(path, "new \ud800")
    assert [file.read_text() for file in tmp_path.iterdir()] == ["old"]


def test_what_a_full_disk_does_not_take_is_remembered_once_it_does(
    full_disk: Callable[[], None], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    memory = Memory(tmp_path, pod_uid="one")
    full_disk()
    for _ in range(3):
        memory.keep(ready=True, life=Life(), hexes={})
    assert len(caplog.records) == 1
    monkeypatch.undo()
    memory.keep(ready=True, life=Life(), hexes={})
    assert Memory(tmp_path, pod_uid="one").last.ready


def test_a_shard_that_a_full_disk_does_not_take_is_acted_on_and_kept_once_it_does(
    full_disk: Callable[[], None], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    state, mount = tmp_path / "state", tmp_path / "mount"
    state.mkdir()
    mount.mkdir()
    (mount / "3.json").write_text(Shard(index=3, revision=5).to_json())
    full_disk()
    shards = Shards(state=state, mount=mount)
    assert shards.offer(Shard(index=4, revision=9))
    assert not shards.poll()
    assert shards.revisions == {"3": 5, "4": 9}
    assert len(caplog.records) == 1
    monkeypatch.undo()
    assert not shards.poll()
    (mount / "3.json").unlink()
    assert Shards(state=state, mount=mount).revisions == {"3": 5, "4": 9}


def test_an_adapter_leaves_a_full_disk(full_disk: Callable[[], None], tmp_path: Path) -> None:
    disk = Disk(tmp_path, budget=100)
    (tmp_path / HEX).mkdir()
    disk = Disk(tmp_path, budget=100)
    full_disk()
    shutil.rmtree(disk.hide(HEX))
    assert disk.published == frozenset()
    assert not list((tmp_path / ".trash").iterdir())


@pytest.mark.parametrize("text", ["", "{", "[]", '{"podUid": 3}'])
def test_a_memory_that_cannot_be_read_is_an_empty_one(tmp_path: Path, text: str) -> None:
    (tmp_path / "pod.json").write_text(text)
    assert Memory(tmp_path, pod_uid="one").last.ready is False


def test_the_higher_revision_wins_wherever_it_comes_from(tmp_path: Path) -> None:
    state, mount = tmp_path / "state", tmp_path / "mount"
    state.mkdir()
    mount.mkdir()
    (mount / "3.json").write_text(Shard(index=3, revision=5).to_json())
    shards = Shards(state=state, mount=mount)
    assert shards.revisions == {"3": 5}
    assert shards.offer(Shard(index=3, revision=9))
    assert not shards.offer(Shard(index=3, revision=9))
    (mount / "3.json").write_text(Shard(index=3, revision=7).to_json() + " ")
    assert not shards.poll()
    assert Shards(state=state, mount=mount).revisions == {"3": 9}
    (mount / "3.json").write_text(Shard(index=3, revision=11).to_json())
    assert shards.poll()
    assert shards.revisions == {"3": 11}


def test_a_shard_in_another_s_place_is_not_taken(tmp_path: Path) -> None:
    (tmp_path / "3.json").write_text(Shard(index=4, revision=5).to_json())
    assert Shards(state=tmp_path, mount=tmp_path).revisions == {}


def test_a_secret_that_is_not_mounted_admits_nobody(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "missing"):
        secret = Secret(path)
        assert not secret.admits("")
        assert secret.credentials == frozenset()
        assert secret.certificate is None


def test_a_secret_is_read_anew_and_keeps_tokens_apart_from_its_own(tmp_path: Path) -> None:
    secret = Secret(tmp_path)
    (tmp_path / door.TOKEN_KEY).write_text("door")
    (tmp_path / "hub-1").write_text("hf_1\n")
    (tmp_path / "engine-api-key").write_text("key")
    (tmp_path / "..data").mkdir()
    assert secret.poll()
    assert not secret.poll()
    assert secret.admits("door")
    assert not secret.admits("hf_1")
    assert secret.credentials == {"hub-1"}
    assert secret.hub_token("hub-1") == "hf_1"
    assert secret.hub_token("hub-2") is None
    assert secret.hub_token("engine-api-key") is None
    assert secret.hub_token(None) is None


NEEDED = {"LORA_AGENT_BASE_MODEL": "a/b", "LORA_AGENT_ADAPTERS_SIZE": "10", "LORA_AGENT_POD_UID": "u"}


def test_settings_come_from_the_environment() -> None:
    settings = Settings.from_environment(
        {
            **NEEDED,
            "LORA_AGENT_READY_TIMEOUT_SECONDS": "7.5",
            "LORA_AGENT_BASE_MODEL_PATH": "/base",
            "LORA_AGENT_MAX_LORA_RANK": "",
            "HF_ENDPOINT": "http://mirror/",
        }
    )
    assert settings.ready_timeout_seconds == 7.5
    assert settings.base_model_path == Path("/base")
    assert settings.max_lora_rank is None
    assert settings.hub_endpoint == "http://mirror"
    assert settings.adapters_path == Path("/adapters")


@pytest.mark.parametrize("name", list(NEEDED))
def test_a_setting_that_is_missing_is_named(name: str) -> None:
    with pytest.raises(SettingsError, match=name):
        Settings.from_environment({key: value for key, value in NEEDED.items() if key != name})


def test_a_setting_that_is_no_number_is_named() -> None:
    with pytest.raises(SettingsError, match="LORA_AGENT_ADAPTERS_SIZE"):
        Settings.from_environment({**NEEDED, "LORA_AGENT_ADAPTERS_SIZE": "20Gi"})


def test_a_log_line_is_one_json_object_with_the_fields_beside_the_message() -> None:
    record = logging.makeLogRecord(
        {"name": "n", "msg": "loaded %s", "args": ("it",), "levelname": "INFO", "adapter": "a"}
    )
    line = json.loads(JsonFormatter().format(record))
    assert (line["message"], line["adapter"], line["level"]) == ("loaded it", "a", "info")
