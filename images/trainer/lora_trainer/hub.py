"""One way to call the Hub: wait out what passes, and turn a refusal into one of ours, naming the field.

The client retries some calls itself and raises a 503 of others at once (of a commit, above all): here all wait alike.
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Final, TypeVar

import httpx2  # the client's own HTTP library: its exceptions come through
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, RevisionNotFoundError

from lora_operator.protocol.training import Reason
from lora_trainer import log
from lora_trainer.result import Refusal

ENV_PATIENCE: Final = "LORA_TRAIN_HUB_PATIENCE_SECONDS"
"""How long one call to the Hub is tried for while the Hub answers 5xx, 429, or not at all."""
DEFAULT_PATIENCE_SECONDS: Final = 300.0
LONGEST_WAIT_SECONDS: Final = 30.0

T = TypeVar("T")


def _jitter() -> float:
    return random.uniform(0.5, 1.0)  # noqa: S311 - spreads retries, keeps no secret


@dataclass(frozen=True, kw_only=True, slots=True)
class Patience:
    """How long to wait for the Hub, or for another server. The clock and the sleep are seams for tests."""

    seconds: float = DEFAULT_PATIENCE_SECONDS
    server: str = "the Hub"
    clock: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep
    jitter: Callable[[], float] = _jitter


def patience_from_env() -> Patience:
    """Return the patience that the environment asks for."""
    text = os.environ.get(ENV_PATIENCE, "")
    try:
        return Patience(seconds=float(text)) if text else Patience()
    except ValueError as error:
        raise Refusal(Reason.CONFIG_INVALID, f"{ENV_PATIENCE}={text!r} is no number of seconds") from error


@dataclass(frozen=True, kw_only=True, slots=True)
class Denied:
    """How the Hub refused: the status, its words, and the client's exception for it."""

    status: int
    words: str
    kind: type[Exception]

    @property
    def revision(self) -> bool:
        """Tell whether the repository is there and the revision is not."""
        return issubclass(self.kind, RevisionNotFoundError)


def call(
    function: Callable[[], T],
    *,
    what: str,
    patience: Patience,
    denied: Callable[[Denied], Refusal],
    also_passing: Collection[int] = (),
) -> T:
    """Call `function` until it answers, the Hub refuses (`denied` makes the Refusal), or patience ends."""
    deadline = patience.clock() + patience.seconds
    attempt = 0
    while True:
        try:
            return function()
        except HFValidationError as error:
            raise denied(Denied(status=0, words=str(error), kind=type(error))) from error
        except (httpx2.UnsupportedProtocol, httpx2.InvalidURL) as error:
            endpoint = os.environ.get("HF_ENDPOINT")
            cause = f"HF_ENDPOINT={endpoint!r} is no address of a Hub" if endpoint else str(error)
            raise Refusal(Reason.CONFIG_INVALID, f"{what}: {cause}") from error
        except (httpx2.HTTPError, OSError, RuntimeError) as error:
            trouble = _trouble(error)
            if isinstance(trouble, Denied) and trouble.status in also_passing:
                trouble = _Passing(words=trouble.words)
            if isinstance(trouble, Denied):
                raise denied(trouble) from error
            wait = max(trouble.retry_after, min(2.0**attempt, LONGEST_WAIT_SECONDS) * patience.jitter())
            if patience.clock() + wait > deadline:
                tried = f"tried for {patience.seconds:.0f} s"
                message = f"{what}: {patience.server} is not available ({trouble.words}); {tried}"
                raise Refusal(Reason.HUB_UNAVAILABLE, message) from error
        log.say(f"{what}: {trouble.words}; next try in {wait:.0f} s")
        patience.sleep(wait)
        attempt += 1


@dataclass(frozen=True, kw_only=True, slots=True)
class _Passing:
    words: str
    retry_after: float = 0.0


def _trouble(error: Exception) -> Denied | _Passing:
    if isinstance(error, HfHubHTTPError):
        return _answered(error)
    if isinstance(error, httpx2.HTTPStatusError):
        status = error.response.status_code
        return (
            _Passing(words=f"{status}")
            if _passes(status)
            else Denied(status=status, words=str(error), kind=type(error))
        )
    if isinstance(error, httpx2.TransportError | ConnectionError | TimeoutError):
        return _Passing(words=f"no answer, {type(error).__name__}")
    cause = error.__cause__
    if isinstance(error, LocalEntryNotFoundError):
        # The client's word for "could not ask": the cause tells why.
        return _trouble(cause) if isinstance(cause, Exception) else _Passing(words="no answer")
    if isinstance(error, RuntimeError) and isinstance(cause, Exception):
        # The client's word for "could not upload".
        return _trouble(cause)
    raise error


def _answered(error: HfHubHTTPError) -> Denied | _Passing:
    response = error.response
    words = f"{response.status_code} {response.headers.get('X-Error-Message') or error.server_message or ''}".strip()
    if _passes(response.status_code):
        return _Passing(words=words, retry_after=_seconds(response.headers.get("Retry-After")))
    return Denied(status=response.status_code, words=words, kind=type(error))


def _passes(status: int) -> bool:
    return status >= 500 or status in {408, 429}


def _seconds(header: str | None) -> float:
    return float(header) if header is not None and header.isdigit() else 0.0
