"""From a source to a pin: ask the Hub, read config and headers, let the adapter library judge. No pod is touched.

Raises Waiting or Blocked, wrapped in the stage at which it happened: the condition that turns False.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import datetime

from lora_operator import hub_tokens
from lora_operator.adapter import Adapter, Verdict, engine_name, inspect, weights_files
from lora_operator.api.lora_adapter import LoRAAdapter
from lora_operator.api.meta import KeyRef
from lora_operator.clients.hub import Place, Snapshot
from lora_operator.clients.hub_reading import RemoteBase, read_adapter
from lora_operator.engine_terms import limits_of, reported_base
from lora_operator.errors import Blocked, Waiting
from lora_operator.lora_adapter.observed import Observed
from lora_operator.lora_adapter.refusal import NotServableError
from lora_operator.protocol.door import credential_key
from lora_operator.protocol.manifest import Entry, File, HubSource, Owner
from lora_operator.world import World


@dataclass(frozen=True, kw_only=True)
class Origin:
    """Where an adapter's files lie, and the Secret that opens it."""

    place: Place
    secret: KeyRef | None
    namespace: str


async def resolve(observed: Observed, world: World) -> Entry:
    """Resolve the source to a commit, judge what is there, and return the entry to hold."""
    adapter = observed.adapter
    origin = origin_of(observed)
    token = await read_token(origin, world)
    snapshot = await world.hub.resolve(origin.place, token=token)
    remote = await read_adapter(world.hub, origin.place, snapshot, token=token)
    base = await _base(observed, world, token)
    # In a thread: a config of a stranger's can take its time, and every other pass runs in this one.
    limits, name = limits_of(observed.engine, base=base.config), adapter.spec.base_model
    verdict = await asyncio.to_thread(inspect, remote, base.shapes, limits, base_name=name)
    if not verdict.servable:
        raise NotServableError(verdict)
    return _entry(adapter, snapshot, remote, verdict, origin=origin, token=token, world=world)


def origin_of(observed: Observed) -> Origin:
    """Return where the adapter's files lie; Waiting or Blocked where a training job has not published them."""
    adapter, job = observed.adapter, observed.job
    namespace = adapter.metadata.namespace
    if (hub := adapter.spec.source.hub) is not None:
        return Origin(place=Place(hub.repo, hub.revision), secret=hub.token_secret_ref, namespace=namespace)
    ref = adapter.spec.source.training_job_ref
    name = ref.name if ref is not None else ""
    if job is None:
        raise Blocked(
            "TrainingJobNotFound",
            f"there is no LoRATrainingJob {namespace}/{name}: correct spec.source.trainingJobRef, or create it",
        )
    artifact = job.status.artifact if job.status is not None else None
    if artifact is None:
        raise Waiting("TrainingJobNotComplete", f"LoRATrainingJob {namespace}/{name} has published nothing yet")
    place = Place(
        artifact.repo,
        artifact.commit,
        repo_field="spec.source.trainingJobRef",
        revision_field="spec.source.trainingJobRef",
        token_field="the job's spec.output.hub.tokenSecretRef",  # noqa: S106 - a field's name
    )
    return Origin(place=place, secret=job.spec.output.hub.token_secret_ref, namespace=namespace)


async def read_token(origin: Origin, world: World) -> str | None:
    """Read the token that opens the origin, and leave a copy for the engine's agents."""
    ref = origin.secret
    token = await hub_tokens.read_token(world.kube, ref, namespace=origin.namespace, field=origin.place.token_field)
    if ref is not None and token is not None:
        world.credentials[credential_key(origin.namespace, ref.name, ref.key)] = token
    return token


async def _base(observed: Observed, world: World, token: str | None) -> RemoteBase:
    """Return the base's config and shapes: from an agent's report, else from the Hub, with the adapter's token or
    without."""
    known, name = world.bases.get(observed.adapter.engine_key), observed.adapter.spec.base_model
    reported = known if known is not None and known.name == name else None
    if reported is not None and (shapes := reported_base(reported)) is not None:
        return RemoteBase(reported.config, shapes)
    for credential in dict.fromkeys([token, None]):
        try:
            found = await world.remote_bases.read(world.hub, Place(name), token=credential)
        except Blocked:
            continue
        if found.shapes is not None:
            return found
    return RemoteBase(reported.config if reported is not None else None, None)


def _entry(  # noqa: PLR0913 - one value of many parts
    adapter: LoRAAdapter,
    snapshot: Snapshot,
    remote: Adapter,
    verdict: Verdict,
    *,
    origin: Origin,
    token: str | None,
    world: World,
) -> Entry:
    digest = remote.digest
    if digest is None:
        raise Blocked(
            "DigestUnknown",
            f"the Hub tells no sha256 for the weights of {snapshot.repo}: upload them with huggingface_hub, so to LFS",
        )
    metadata, summary, secret = adapter.metadata, verdict.summary, origin.secret
    return Entry(
        engine_name=engine_name(metadata.namespace, metadata.name, digest),
        digest=digest,
        hub=HubSource(
            repo=snapshot.repo,
            commit=snapshot.commit,
            credential=credential_key(origin.namespace, secret.name, secret.key) if token and secret else None,
        ),
        files=tuple(
            File(path=name, sha256=facts.sha256 or "", size=facts.size)
            for name in weights_files(remote.files)
            for facts in [remote.files[name]]
        ),
        owner=Owner(
            namespace=metadata.namespace,
            name=metadata.name,
            uid=metadata.uid,
            generation=metadata.generation,
            requested_at=adapter.requested_at,
        ),
        resolved=_stamp(world.now()),
        rank=summary.rank or 0,
        lora_alpha=f"{summary.lora_alpha:g}" if summary.lora_alpha is not None else "",
        target_modules=summary.target_modules,
    )


def _stamp(now: datetime) -> str:
    return now.isoformat(timespec="milliseconds").replace("+00:00", "Z")
