"""What an engine's refusal means for an entry: the reason that is shown, and whether waiting helps. Pure.

By status, and by the shape of FastAPI's own answer to an unknown path; vLLM's sentences are passed on, never matched.
"""

from __future__ import annotations

from lora_agent.backoff import Ends, Trouble
from lora_agent.engine import NoAnswer, Refusal

_NO_ROUTE = "Not Found"
"""FastAPI's whole message for a path that it doesn't have."""


def of_listing(refusal: Refusal) -> Trouble:
    """Return the trouble of an engine that is well but doesn't say what it has."""
    if refusal.status in {401, 403}:
        return _unauthorised()
    return Trouble("EngineNotReady", f"the engine answers /v1/models with {refusal}", ends=Ends.TRANSIENT)


def of_load(refusal: Refusal) -> Trouble:
    """Return the trouble of a load that was refused."""
    if refusal.status in {401, 403}:
        return _unauthorised()
    if refusal.status == 404 and refusal.message == _NO_ROUTE:
        return Trouble(
            "RuntimeLoadingDisabled",
            "the engine has no route to load adapters: it needs --enable-lora and "
            "VLLM_ALLOW_RUNTIME_LORA_UPDATING=True in its environment",
            ends=Ends.REFUSED,
        )
    if refusal.status in {408, 429, 502, 503, 504}:
        return Trouble("EngineNotReady", f"the engine answers {refusal}", ends=Ends.TRANSIENT)
    return Trouble(
        "LoadRefused",
        "the engine refuses the adapter (change what spec.source names, or the engine's flags where they forbid it): "
        f"{refusal}",
        ends=Ends.REFUSED,
    )


def of_probe(refusal: Refusal) -> Trouble:
    """Return the trouble of a probe that was refused; a request is no reason to doubt the load."""
    if refusal.status in {401, 403}:
        return _unauthorised()
    if refusal.status in {404, 408, 429} or refusal.status >= 500:
        return Trouble("ProbePending", f"the engine answers the probe with {refusal}", ends=Ends.TRANSIENT)
    return Trouble(
        "ProbeRefused",
        f"the engine has the adapter but refuses a completion (it needs a --model that completes text): {refusal}",
        ends=Ends.REFUSED,
    )


def silence(error: NoAnswer, *, reason: str) -> Trouble:
    """Return the trouble of a call that the engine left unanswered."""
    return Trouble(reason, f"the engine gives no answer: {error}", ends=Ends.TRANSIENT)


def _unauthorised() -> Trouble:
    return Trouble(
        "EngineUnauthorized",
        "the engine asks for an API key that the agent does not have, or has another one: give it to the engine's "
        "container as VLLM_API_KEY in env, with its value or a secretKeyRef, or as --api-key in its command; from an "
        "envFrom, a configMapKeyRef or a script the agent can't have it",
        ends=Ends.REFUSED,
    )
