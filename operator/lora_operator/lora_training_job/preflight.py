"""What can be known before a GPU is asked for: that the engine could serve the result, and that everything is there.

Raises Waiting or Blocked naming the field; returns the commits that the names in the spec stand for.
"""

from __future__ import annotations

import base64
import hashlib
import json

from lora_operator.adapter import from_config, inspect
from lora_operator.api.dataset import HubDataset
from lora_operator.api.lora_training_job import JobSpec
from lora_operator.api.meta import KeyRef
from lora_operator.api.served_lora import served_config
from lora_operator.clients.hub import Place
from lora_operator.clients.kube import CONFIG_MAPS
from lora_operator.engine_terms import limits_of, reported_base
from lora_operator.errors import Blocked
from lora_operator.hub_tokens import read_token
from lora_operator.lora_training_job.manifests import Pins
from lora_operator.lora_training_job.observed import Object, Observed
from lora_operator.lora_training_job.plan import obstacle
from lora_operator.world import World


async def check(observed: Observed, world: World) -> Pins:
    """Look at everything, the cheapest first."""
    if (problem := obstacle(observed)) is not None:
        raise problem
    spec = observed.job.spec
    _check_servable(observed)
    token = await output_token(observed, world)
    dataset_revision, dataset = await _dataset(observed, world)
    base_revision = await _base(observed, world)
    adapter_revision = await _start(observed, world)
    await world.hub.check_write(output_place(spec), token=token)
    return Pins(
        base_revision=base_revision,
        dataset_revision=dataset_revision,
        adapter_revision=adapter_revision,
        dataset=dataset,
    )


def output_place(spec: JobSpec, *, revision: str = "main") -> Place:
    """Return where the result is published."""
    return Place(
        spec.output.hub.repo,
        revision,
        repo_field="spec.output.hub.repo",
        revision_field="spec.output.hub.repo",
        token_field="spec.output.hub.tokenSecretRef",  # noqa: S106 - a field's name
    )


async def output_token(observed: Observed, world: World) -> str | None:
    """Read the token that may publish."""
    return await _token(
        observed.job.spec.output.hub.token_secret_ref, "spec.output.hub.tokenSecretRef", observed, world
    )


def _check_servable(observed: Observed) -> None:
    """Let the adapter library judge the config that peft would write."""
    spec = observed.job.spec
    if spec.engine_ref is None:
        return
    if spec.lora.init_from is not None:
        return  # the adapter to go on from has its own shape; the trainer reads it before it trains
    config = served_config(spec.lora) | {"base_model_name_or_path": spec.base_model.name}
    base = observed.base
    verdict = inspect(
        from_config(json.dumps(config).encode()),
        reported_base(base) if base is not None else None,
        limits_of(observed.engine, base=base.config if base is not None else None),
        base_name=spec.base_model.name,
    )
    if verdict.compatible == "False":
        raise Blocked(
            verdict.reason, f"{observed.job.engine_key} could not serve what spec.lora asks for: {verdict.message()}"
        )


async def _base(observed: Observed, world: World) -> str:
    base = observed.job.spec.base_model
    field = "spec.baseModel.tokenSecretRef"
    token = await _token(base.token_secret_ref, field, observed, world)
    place = Place(
        base.name,
        base.revision,
        repo_field="spec.baseModel.name",
        revision_field="spec.baseModel.revision",
        token_field=field,
    )
    return await _commit(place, token, world)


async def _start(observed: Observed, world: World) -> str:
    start = observed.job.spec.lora.init_from
    if start is None or start.hub is None:
        return ""
    field = "spec.lora.initFrom.hub"
    token = await _token(start.hub.token_secret_ref, f"{field}.tokenSecretRef", observed, world)
    place = Place(
        start.hub.repo,
        start.hub.revision,
        repo_field=f"{field}.repo",
        revision_field=f"{field}.revision",
        token_field=f"{field}.tokenSecretRef",
    )
    return await _commit(place, token, world)


async def _dataset(observed: Observed, world: World) -> tuple[str, Object | None]:
    """Return the data set's revision; and the data set itself, where it lies in a ConfigMap."""
    source = observed.job.spec.dataset.source
    if source.config_map_ref is not None:
        return await _of_config_map(source.config_map_ref, observed, world)
    if source.url is not None:
        return f"sha256:{source.url.sha256}", None
    if source.pvc is not None:
        return "", None  # what lies on the volume only the trainer sees: its result has the digest
    if source.hub is None:
        raise Blocked("DatasetNotFound", "spec.dataset.source names nothing: give hub, configMapRef, pvc or url")
    return await _dataset_commit(source.hub, observed, world), None


async def _of_config_map(ref: KeyRef, observed: Observed, world: World) -> tuple[str, Object]:
    namespace, field = observed.job.metadata.namespace, "spec.dataset.source.configMapRef"
    found = await world.kube.get(CONFIG_MAPS, namespace, ref.name)
    if found is None:
        raise Blocked("DatasetNotFound", f"{field} names ConfigMap {ref.name}, which is not in {namespace}")
    text, binary = (found.get("data") or {}).get(ref.key), (found.get("binaryData") or {}).get(ref.key)
    if text is None and binary is None:
        raise Blocked("DatasetNotFound", f"{field}: ConfigMap {ref.name} has no key {ref.key!r}")
    value = base64.b64decode(binary) if binary is not None else str(text).encode()
    copy = {"binaryData": {ref.key: binary}} if binary is not None else {"data": {ref.key: text}}
    return f"sha256:{hashlib.sha256(value).hexdigest()}", copy


async def _dataset_commit(hub: HubDataset, observed: Observed, world: World) -> str:
    field = "spec.dataset.source.hub.tokenSecretRef"
    token = await _token(hub.token_secret_ref, field, observed, world)
    place = Place(
        hub.repo,
        hub.revision,
        repo_field="spec.dataset.source.hub.repo",
        revision_field="spec.dataset.source.hub.revision",
        token_field=field,
        repo_type="dataset",
    )
    return await _commit(place, token, world)


async def _commit(place: Place, token: str | None, world: World) -> str:
    snapshot = await world.hub.resolve(place, token=token)
    await world.hub.check_read(place, token=token)
    return snapshot.commit


async def _token(ref: KeyRef | None, field: str, observed: Observed, world: World) -> str | None:
    return await read_token(world.kube, ref, namespace=observed.job.metadata.namespace, field=field)
