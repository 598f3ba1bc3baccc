"""Whether the token may publish, asked without making anything: for `--check`."""

from __future__ import annotations

from typing import Any, Final

from huggingface_hub import HfApi

from lora_operator.api.training import HubOutput
from lora_operator.protocol.training import Reason
from lora_trainer import hub
from lora_trainer.hub import Denied, Patience
from lora_trainer.result import Refusal

FIELD: Final = "output.hub.repo"
WRITERS: Final = frozenset({"admin", "write", "contributor"})


def check(output: HubOutput, *, token: str | None, patience: Patience) -> str:
    """Say that the token may write to the repository, or create it; refuse where it may not."""
    api, what = HfApi(token=token), f"output.hub {output.repo}"

    def refused(denied: Denied) -> Refusal:
        words = f"the token in output.hub.tokenSecretRef may not write to {output.repo} ({denied.words})"
        return Refusal(Reason.HUB_UNAUTHORIZED, f"{FIELD}: {words}")

    if hub.call(lambda: api.repo_exists(output.repo), what=what, patience=patience, denied=refused):
        hub.call(lambda: api.auth_check(output.repo, write=True), what=what, patience=patience, denied=refused)
        return f"the token may write to {output.repo}"
    who = hub.call(api.whoami, what=what, patience=patience, denied=refused)
    if fault := creates(output.repo, who):
        raise Refusal(Reason.HUB_UNAUTHORIZED, f"{FIELD}: {fault}")
    return f"{output.repo} is not there yet, and the token may create it"


def creates(repo: str, who: dict[str, Any]) -> str | None:
    """Return why the token's owner, as `whoami` tells of him, could not create the repository; None where he could."""
    name, owner = str(who.get("name", "")), repo.partition("/")[0] if "/" in repo else str(who.get("name", ""))
    token = (who.get("auth") or {}).get("accessToken") or {}
    if token.get("role") == "read":
        return f"the token in output.hub.tokenSecretRef may only read; it is {name}'s"
    if owner == name:
        return None
    roles = {str(org.get("name")): str(org.get("roleInOrg", "write")) for org in who.get("orgs") or []}
    if owner not in roles:
        return f"the token in output.hub.tokenSecretRef is {name}'s, who is not in {owner}"
    if roles[owner] not in WRITERS:
        return f"the token in output.hub.tokenSecretRef is {name}'s, who may only {roles[owner]} in {owner}"
    return None
