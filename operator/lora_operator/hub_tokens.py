"""Hub tokens, read from the Secrets that objects name. Never logged, never written but to where they are mounted."""

from __future__ import annotations

import base64

from lora_operator.api.meta import KeyRef
from lora_operator.clients.kube import SECRETS, Kube
from lora_operator.errors import Blocked


async def read_token(kube: Kube, ref: KeyRef | None, *, namespace: str, field: str) -> str | None:
    """Read the token that `field` refers to; None where it refers to none, Blocked where there is nothing to read."""
    if ref is None:
        return None
    secret = await kube.get(SECRETS, namespace, ref.name)
    if secret is None:
        raise Blocked("TokenSecretNotFound", f"{field} names Secret {ref.name}, which is not in {namespace}")
    data = (secret.get("data") or {}).get(ref.key)
    if not data:
        raise Blocked("TokenSecretNotFound", f"{field}: Secret {ref.name} has no key {ref.key!r}")
    token = base64.b64decode(data).decode(errors="replace").strip()
    if not (token.isascii() and token.isprintable()):
        raise Blocked(
            "TokenMalformed", f"{field}: key {ref.key!r} of Secret {ref.name} holds more than a line of ASCII"
        )
    return token
