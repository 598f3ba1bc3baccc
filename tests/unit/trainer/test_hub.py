"""A call to the Hub waits out what passes, stops at a refusal, and ends with its patience."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import httpx2
import pytest
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, RevisionNotFoundError

from lora_operator.protocol.training import Reason
from lora_trainer import hub
from lora_trainer.hub import Denied, Patience
from lora_trainer.result import Refusal


class Clock:
    """Time that passes only by sleeping."""

    def __init__(self) -> None:
        self.now = 0.0
        self.slept: list[float] = []

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds

    def patience(self, seconds: float = 100) -> Patience:
        return Patience(seconds=seconds, clock=lambda: self.now, sleep=self.sleep, jitter=lambda: 1.0)


def answer(
    status: int, *, headers: dict[str, str] | None = None, kind: type[HfHubHTTPError] = HfHubHTTPError
) -> HfHubHTTPError:
    request = httpx2.Request("GET", "http://hub.test/api/models/acme/x")
    return kind(f"{status}", response=httpx2.Response(status, headers=headers, request=request))


def refused(denied: Denied) -> Refusal:
    return Refusal(Reason.HUB_UNAUTHORIZED, f"{denied.status} {denied.revision}")


def calling(clock: Clock, *outcomes: Exception | str, seconds: float = 100) -> str:
    left: Iterator[Exception | str] = iter(outcomes)

    def function() -> str:
        outcome = next(left)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    call: Callable[[], str] = function
    return hub.call(call, what="repo", patience=clock.patience(seconds), denied=refused)


def lost() -> LocalEntryNotFoundError:
    error = LocalEntryNotFoundError("can't be had")
    error.__cause__ = answer(503)
    return error


@pytest.mark.parametrize(
    "passing",
    [
        answer(503),
        answer(500),
        answer(408),
        answer(429),
        httpx2.ConnectError("x"),
        ConnectionError(),
        TimeoutError(),
        lost(),
    ],
)
def test_what_passes_is_waited_out_with_growing_waits(passing: Exception) -> None:
    clock = Clock()
    assert calling(clock, passing, passing, passing, "well") == "well"
    assert clock.slept == [1, 2, 4]


def test_a_429_says_itself_how_long_to_wait() -> None:
    clock = Clock()
    assert calling(clock, answer(429, headers={"Retry-After": "17"}), "well") == "well"
    assert clock.slept == [17]


def test_patience_ends_with_hub_unavailable() -> None:
    clock = Clock()
    with pytest.raises(Refusal, match=r"repo: the Hub is not available \(503.*\); tried for 10 s") as error:
        calling(clock, *[answer(503) for _ in range(9)], seconds=10)
    assert error.value.reason is Reason.HUB_UNAVAILABLE
    assert clock.now <= 10


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (answer(403), "403 False"),
        (answer(404, kind=RevisionNotFoundError), "404 True"),
        (HFValidationError("bad name"), "0 False"),
    ],
)
def test_a_refusal_of_the_hub_is_final(error: Exception, words: str) -> None:
    clock = Clock()
    with pytest.raises(Refusal, match=words) as refusal:
        calling(clock, error)
    assert refusal.value.reason is Reason.HUB_UNAUTHORIZED
    assert clock.slept == []


def test_a_full_disk_is_no_trouble_of_the_hub() -> None:
    with pytest.raises(OSError, match="No space left"):
        calling(Clock(), OSError(28, "No space left on device"))


def test_patience_comes_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(hub.ENV_PATIENCE, "5")
    assert hub.patience_from_env().seconds == 5
    monkeypatch.setenv(hub.ENV_PATIENCE, "soon")
    with pytest.raises(Refusal, match="is no number of seconds"):
        hub.patience_from_env()


@pytest.mark.parametrize("error", [httpx2.UnsupportedProtocol("no scheme"), httpx2.InvalidURL("no host")])
def test_an_address_that_is_none_is_a_fault_of_who_set_it(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "nonsense")
    with pytest.raises(Refusal, match=r"^repo: HF_ENDPOINT='nonsense' is no address of a Hub$") as refusal:
        calling(Clock(), error)
    assert refusal.value.reason is Reason.CONFIG_INVALID


def test_another_server_is_not_called_the_hub() -> None:
    clock = Clock()

    def function() -> str:
        raise httpx2.ConnectError("x")

    with pytest.raises(Refusal, match=r"^dataset.source.url: data.test is not available"):
        hub.call(
            function,
            what="dataset.source.url",
            patience=replace(clock.patience(1), server="data.test"),
            denied=refused,
        )
