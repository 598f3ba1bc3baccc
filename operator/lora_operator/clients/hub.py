"""The Hugging Face Hub as passes see it: resolve a revision, read a file or a part of one, ask what a token may.

`huggingface_hub` does the talking, in threads. Its errors become ours by status code, for its classes do not tell
"no access" from "gone" (RepositoryNotFoundError is raised for 401 and 404 alike).
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Concatenate, Final, Literal, NoReturn, ParamSpec, TypeVar

import httpx2 as httpx
from huggingface_hub import HfApi, hf_hub_url, set_client_factory
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    RevisionNotFoundError,
)
from huggingface_hub.utils._headers import build_hf_headers
from huggingface_hub.utils._http import default_client_factory, get_session

from lora_operator.errors import Blocked, Waiting

TIMEOUT: Final = 30.0
"""Seconds for one answer, or one part of it."""
WHOLE_TIMEOUT: Final = 120.0
"""Seconds for one call, however many answers and parts it takes."""
RETRY: Final = 15.0

Arguments = ParamSpec("Arguments")
Found = TypeVar("Found")


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """One file at a commit. `sha256` is known without reading the file only where it lies in LFS or Xet."""

    path: str
    size: int
    sha256: str | None


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A repository at the commit that a revision resolved to."""

    repo: str
    commit: str
    files: tuple[RemoteFile, ...]


@dataclass(frozen=True, slots=True)
class Place:
    """What a caller was asked to read, in the words of the object that asked: the fields that an error names."""

    repo: str
    revision: str = "main"
    repo_field: str = "spec.source.hub.repo"
    revision_field: str = "spec.source.hub.revision"
    token_field: str = "spec.source.hub.tokenSecretRef"  # noqa: S105 - a field's name
    repo_type: Literal["model", "dataset"] = "model"
    meanwhile: str = "trying again"
    """What whoever asked does about a Hub that can't be reached."""


class Hub:
    """One Hub. `endpoint` defaults to huggingface_hub's own HF_ENDPOINT."""

    def __init__(self, endpoint: str | None = None) -> None:
        self.endpoint = endpoint or os.environ.get("HF_ENDPOINT") or "https://huggingface.co"
        self._api = HfApi(endpoint=self.endpoint, library_name="lora-operator")
        self._silent_until = 0.0
        set_client_factory(_client)

    async def resolve(self, place: Place, *, token: str | None) -> Snapshot:
        """Resolve a repository's revision to a commit and list its files; of a data set, without their sizes.

        Raises Blocked or Waiting with the reason RepositoryNotFound, RevisionNotFound, HubUnauthorized, HubForbidden
        or HubUnavailable.
        """
        return await self._ask(self._resolve, place, token)

    async def read(
        self, place: Place, path: str, *, token: str | None, span: tuple[int, int] | None = None, limit: int
    ) -> bytes:
        """Read a file at a commit (`place.revision`), or bytes [first, last] of it; at most `limit` bytes."""
        return await self._ask(self._read, place, path, token, span, limit)

    async def check_read(self, place: Place, *, token: str | None) -> None:
        """Make sure that a repository's files may be read (a gated one shows its page to all); raises as `resolve`."""
        await self._ask(self._check_read, place, token)

    async def check_write(self, place: Place, *, token: str | None) -> None:
        """Make sure that a token may publish to a repository, or make it where it does not exist; raises as `resolve`.

        What a fine-grained token may is not told before it is tried: it passes, and the trainer says so if it may not.
        """
        if token is None:
            message = f"{place.repo} can't be written to without a token: set {place.token_field}"
            raise Blocked("HubUnauthorized", message)
        await self._ask(self._check_write, place, token)

    async def find_commit(self, place: Place, line: str, *, token: str | None) -> str | None:
        """Return the newest commit on the main branch whose message has this line; None where there is none."""
        return await self._ask(self._find_commit, place, line, token)

    async def _ask(
        self,
        call: Callable[Concatenate[Place, Arguments], Found],
        place: Place,
        /,
        *arguments: Arguments.args,
        **named: Arguments.kwargs,
    ) -> Found:
        """Make a call in a thread, within a time. A Hub that gave no answer is asked nothing for a moment.

        Passes share a few workers: each that waited for a Hub that is gone would hold up those that need no Hub.
        """
        clock = asyncio.get_running_loop()
        if (left := self._silent_until - clock.time()) > 0:
            raise Waiting("HubUnavailable", f"the Hub can't be reached; {place.meanwhile}", after=left)
        try:
            async with asyncio.timeout(WHOLE_TIMEOUT):
                return await asyncio.to_thread(call, place, *arguments, **named)
        except TimeoutError as error:
            self._silent_until = clock.time() + RETRY
            message = f"the Hub did not answer within {WHOLE_TIMEOUT:.0f} s; {place.meanwhile}"
            raise Waiting("HubUnavailable", message, after=RETRY) from error
        except Waiting as waiting:
            if isinstance(waiting.__cause__, httpx.TransportError):
                self._silent_until = clock.time() + RETRY
            raise
        except HFValidationError as error:
            message = f"{place.repo} can't be a repository's name: {error}; correct {place.repo_field}"
            raise Blocked("RepositoryNotFound", message) from error

    def _check_read(self, place: Place, token: str | None) -> None:
        try:
            self._api.auth_check(place.repo, repo_type=place.repo_type, token=token or False)
        except (HfHubHTTPError, httpx.HTTPError, OSError) as error:
            _explain(error, place, token)

    def _check_write(self, place: Place, token: str) -> None:
        try:
            if self._api.repo_exists(place.repo, token=token):
                self._api.auth_check(place.repo, token=token, write=True)
                return
            user = self._api.whoami(token=token)
        except (HfHubHTTPError, httpx.HTTPError, OSError) as error:
            _explain(error, place, token, done="written to")
        namespaces = [user["name"], *(org["name"] for org in user.get("orgs") or [])]
        owner, slash, _ = place.repo.partition("/")
        if slash and owner not in namespaces:
            message = (
                f"{place.repo} can't be made: the token is of {namespaces[0]}, which is not in {owner}; "
                f"correct {place.repo_field} or {place.token_field}"
            )
            raise Blocked("HubForbidden", message)
        if ((user.get("auth") or {}).get("accessToken") or {}).get("role") == "read":
            message = f"{place.repo} can't be made: the token may only read; change {place.token_field}"
            raise Blocked("HubForbidden", message)

    def _find_commit(self, place: Place, line: str, token: str | None) -> str | None:
        try:
            commits = self._api.list_repo_commits(place.repo, token=token or False)
        except (HfHubHTTPError, httpx.HTTPError, OSError) as error:
            _explain(error, place, token)
        return next((commit.commit_id for commit in commits if line in commit.message.splitlines()), None)

    def _resolve(self, place: Place, token: str | None) -> Snapshot:
        ask = self._api.dataset_info if place.repo_type == "dataset" else self._api.model_info
        try:
            info = ask(
                place.repo,
                revision=place.revision,
                files_metadata=place.repo_type == "model",
                token=token or False,
                timeout=TIMEOUT,
            )
        except (HfHubHTTPError, httpx.HTTPError, OSError) as error:
            _explain(error, place, token)
        files = tuple(
            RemoteFile(sibling.rfilename, sibling.size or 0, sibling.lfs.sha256 if sibling.lfs else None)
            for sibling in info.siblings or ()
        )
        return Snapshot(place.repo, info.sha or place.revision, files)

    def _read(self, place: Place, path: str, token: str | None, span: tuple[int, int] | None, limit: int) -> bytes:
        url = hf_hub_url(place.repo, path, revision=place.revision, endpoint=self.endpoint)
        headers = build_hf_headers(token=token or False, library_name="lora-operator")
        if span is not None:
            headers["Range"] = f"bytes={span[0]}-{span[1]}"
        data = bytearray()
        skipped = 0
        try:
            with get_session().stream("GET", url, headers=headers, timeout=TIMEOUT, follow_redirects=True) as answer:
                answer.raise_for_status()
                # A mirror that knows no ranges sends the file from its start.
                skipped = span[0] if span is not None and answer.status_code == 200 else 0
                for chunk in answer.iter_bytes():
                    data += chunk
                    if len(data) >= skipped + limit:
                        break
        except (httpx.HTTPError, OSError) as error:
            _explain(error, place, token)
        return bytes(data[skipped : skipped + limit])


def _client() -> httpx.Client:
    """Return huggingface_hub's own client; but where nobody asks for less, it would wait for an answer for ever."""
    client = default_client_factory()
    client.event_hooks = {"request": [*client.event_hooks["request"], _limit]}
    return client


def _limit(request: httpx.Request) -> None:
    # Not the client's own default: some calls, such as repo_exists, ask for no limit in so many words.
    if request.extensions.get("timeout", {}).get("read") is None:
        request.extensions = {**request.extensions, "timeout": httpx.Timeout(TIMEOUT).as_dict()}


def _explain(error: Exception, place: Place, token: str | None, *, done: str = "read") -> NoReturn:
    """Raise what an error of the client means, naming the field to change. `done`: what could not be done."""
    response = getattr(error, "response", None)
    status: int | None = getattr(response, "status_code", None)
    given = "the token given" if token else "no token given"
    if isinstance(error, RevisionNotFoundError):
        message = f"{place.repo} has no revision {place.revision!r}: correct {place.revision_field}"
        raise Blocked("RevisionNotFound", message) from error
    if isinstance(error, EntryNotFoundError):
        message = f"a file of {place.repo} at {place.revision} is gone: correct {place.revision_field}"
        raise Blocked("FileNotFound", message) from error
    if isinstance(error, GatedRepoError) or status == 403:
        message = f"{place.repo} may not be {done} with {given}: ask for access, or change {place.token_field}"
        raise Blocked("HubForbidden", message) from error
    if status == 401:
        hint = "the Hub refuses the token" if token else "it is private or does not exist"
        message = f"{place.repo} can't be {done}: {hint}; set {place.token_field}, or correct {place.repo_field}"
        raise Blocked("HubUnauthorized", message) from error
    if status == 404:
        message = f"there is no {place.repo} that {given} may see: correct {place.repo_field} or {place.token_field}"
        raise Blocked("RepositoryNotFound", message) from error
    what = f"answered {status}" if status else f"can't be reached ({type(error).__name__})"
    raise Waiting("HubUnavailable", f"the Hub {what}; {place.meanwhile}", after=RETRY) from error
