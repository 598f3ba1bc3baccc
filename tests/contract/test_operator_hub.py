"""The operator's Hub client where the Hub does not answer, or is asked for what can't be."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Awaitable, Callable, Iterator

import pytest

from lora_operator.clients import hub as hub_client
from lora_operator.clients.hub import Hub, Place
from lora_operator.errors import Blocked, Waiting

PLACE = Place("acme/support")
CALLS: dict[str, Callable[[Hub], Awaitable[object]]] = {
    "resolve": lambda hub: hub.resolve(PLACE, token=None),
    "read": lambda hub: hub.read(PLACE, "config.json", token=None, limit=10),
    "check_read": lambda hub: hub.check_read(PLACE, token="hf_x"),
    "check_write": lambda hub: hub.check_write(PLACE, token="hf_x"),
    "find_commit": lambda hub: hub.find_commit(PLACE, "line", token=None),
}


class Silent:
    """Takes connections and never answers."""

    def __init__(self, listener: socket.socket) -> None:
        self.url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        self.callers: list[socket.socket] = []
        self._listener = listener

    def take(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                self.callers.append(self._listener.accept()[0])


@pytest.fixture
def silent() -> Iterator[Silent]:
    """Return a Hub that never answers."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        hub = Silent(listener)
        thread = threading.Thread(target=hub.take)
        thread.start()
        yield hub
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()
        for caller in hub.callers:
            caller.close()


@pytest.mark.parametrize("name", CALLS)
async def test_no_call_waits_for_ever(name: str, silent: Silent, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub_client, "TIMEOUT", 0.3)
    monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", lambda _: None)  # between its own attempts
    with pytest.raises(Waiting, match="can't be reached") as raised:
        await CALLS[name](Hub(silent.url))
    assert raised.value.reason == "HubUnavailable"


async def test_a_hub_that_gave_no_answer_is_asked_nothing_for_a_moment(
    silent: Silent, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub_client, "TIMEOUT", 0.3)
    hub = Hub(silent.url)
    with pytest.raises(Waiting):
        await CALLS["resolve"](hub)
    asked = len(silent.callers)

    with pytest.raises(Waiting) as raised:
        await CALLS["read"](hub)

    assert len(silent.callers) == asked
    assert 0 < raised.value.after <= hub_client.RETRY


async def test_a_call_that_takes_too_long_as_a_whole_is_given_up(
    silent: Silent, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub_client, "TIMEOUT", 2.0)
    monkeypatch.setattr(hub_client, "WHOLE_TIMEOUT", 0.2)
    with pytest.raises(Waiting, match="did not answer within"):
        await CALLS["resolve"](Hub(silent.url))


@pytest.mark.parametrize("name", ["acme/support.git", "acme/support--bot", f"acme/{'a' * 97}"])
async def test_a_name_that_no_repository_has_is_told_with_its_field(name: str) -> None:
    with pytest.raises(Blocked, match=r"correct spec\.source\.hub\.repo") as raised:
        await Hub("http://127.0.0.1:9").resolve(Place(name), token=None)
    assert raised.value.reason == "RepositoryNotFound"
