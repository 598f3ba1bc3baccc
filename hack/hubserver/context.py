"""What every route starts from: the server's state, the caller, the repository and the revision of a request."""

import hashlib
import hmac
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, TypeVar

import pydantic
from aiohttp import web

from hubserver import answers, tokens
from hubserver.faults import Fault, Faults
from hubserver.gitobjects import Commit, Repo, RepoKey, RepoType
from hubserver.requestlog import Record, RequestLog
from hubserver.store import Store
from hubserver.tokens import Token

TYPES: Mapping[str, RepoType] = {"models": "model", "datasets": "dataset"}


@dataclass(kw_only=True, slots=True)
class State:
    store: Store
    tokens: Mapping[str, Token]
    faults: Faults
    log: RequestLog
    link_secret: bytes
    multipart_above_bytes: int
    files_url: str | None
    files_port: int = 0

    def files_base(self, request: web.Request) -> str:
        """Where content is served: the same host as the caller used, another port, so another origin."""
        return self.files_url or str(request.url.origin().with_port(self.files_port))

    def signature(self, purpose: str) -> str:
        return hmac.new(self.link_secret, purpose.encode(), hashlib.sha256).hexdigest()[:32]


STATE = web.AppKey("state", State)
HOST: web.AppKey[Literal["api", "files"]] = web.AppKey("host")
RECORD = web.RequestKey("record", Record)
FAULT = web.RequestKey("fault", Fault)
Body = TypeVar("Body", bound=pydantic.BaseModel)
Access = Literal["see", "download", "write"]


def state_of(request: web.Request) -> State:
    return request.app[STATE]


def secret_of(request: web.Request) -> str | None:
    scheme, _, secret = request.headers.get("Authorization", "").partition(" ")
    return secret if scheme.lower() == "bearer" and secret else None


def caller(request: web.Request) -> Token | None:
    """Return whose token came along; none is fine, a wrong one never is."""
    secret = secret_of(request)
    if secret is None:
        return None
    token = state_of(request).tokens.get(secret)
    if token is None:
        raise answers.RefusalError(401, "Invalid credentials in Authorization header")
    return token


def writer(request: web.Request, namespace: str, *, action: str) -> Token:
    token = caller(request)
    if token is None:
        raise answers.RefusalError(401, "Invalid username or password.")
    if not token.may_write(namespace):
        raise answers.RefusalError(403, f"Forbidden: you must use a write token to {action} under {namespace!r}")
    return token


def key_of(request: web.Request) -> RepoKey:
    info = request.match_info
    repo_type = TYPES[info.get("type") or "models"]
    return RepoKey(type=repo_type, namespace=info["namespace"], name=info["name"])


def repo_of(request: web.Request, access: Access = "see") -> Repo:
    """Return the request's repository, or refuse as the Hub does."""
    token, repo = caller(request), state_of(request).store.get(key_of(request))
    if repo is None or not tokens.may_see(token, repo):
        raise answers.no_such_repo(known_caller=token is not None)
    if access == "download" and not tokens.may_download(token, repo):
        raise answers.gated(repo.key.id, known_caller=token is not None)
    if access == "write":
        writer(request, repo.key.namespace, action="change a repository")
    return repo


def commit_at(repo: Repo, revision: str) -> Commit:
    commit = repo.resolve(revision)
    if commit is None:
        raise answers.no_such_revision(revision)
    return commit


async def body_of(request: web.Request, model: type[Body]) -> Body:
    """Read a JSON body, whatever content type the client gives it."""
    try:
        return model.model_validate_json(await request.read())
    except pydantic.ValidationError as error:
        raise answers.bad_request(f"Body not understood: {error}") from error
