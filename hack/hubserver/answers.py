"""The Hub's ways to say no: the status, the JSON and the `X-Error-*` headers that the client turns into exceptions."""

from collections.abc import Mapping

from aiohttp import web


class RefusalError(Exception):
    """An answer that ends the request; the middleware sends it."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        code: str | None = None,
        extra: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.code = code
        self.extra = dict(extra or {})
        self.headers = dict(headers or {})


def response_to(refusal: RefusalError) -> web.Response:
    headers = {"X-Error-Message": " ".join(refusal.message.split()), **refusal.headers}
    if refusal.code is not None:
        headers["X-Error-Code"] = refusal.code
    return web.json_response({"error": refusal.message, **refusal.extra}, status=refusal.status, headers=headers)


def bad_request(message: str) -> RefusalError:
    return RefusalError(400, message)


def no_such_repo(*, known_caller: bool) -> RefusalError:
    """Hide whether a private repository exists: strangers hear 401, other users 404, as on the Hub."""
    if known_caller:
        return RefusalError(404, "Repository not found", code="RepoNotFound")
    return RefusalError(401, "Invalid username or password.", code="RepoNotFound")


def gated(repo_id: str, *, known_caller: bool) -> RefusalError:
    message = f"Access to {repo_id} is restricted. You must be authenticated and on its authorized list to access it."
    return RefusalError(403 if known_caller else 401, message, code="GatedRepo")


def no_such_revision(revision: str) -> RefusalError:
    return RefusalError(404, f"Invalid rev id: {revision}", code="RevisionNotFound")


def no_such_entry(path: str, *, commit: str) -> RefusalError:
    message = f"Entry not found: {path}"
    return RefusalError(404, message, code="EntryNotFound", headers={"X-Repo-Commit": commit})
