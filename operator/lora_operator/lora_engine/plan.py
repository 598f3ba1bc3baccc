"""What the LoRAEngine pass is to write, from what it observed. Pure.

read the workload -> adopt it, put our fields back, or refuse -> the manifest -> the Secret
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from lora_operator import conditions
from lora_operator.api.lora_engine import EngineCondition
from lora_operator.engines import vllm
from lora_operator.engines.refusal import Refusal
from lora_operator.lora_engine import adoption
from lora_operator.lora_engine.adoption import Record
from lora_operator.lora_engine.manifests import ENGINE_API_KEY
from lora_operator.lora_engine.observed import Observed
from lora_operator.lora_engine.ownership import last_other_manager
from lora_operator.lora_engine.secret import next_data
from lora_operator.lora_engine.shards import Manifest, plan_manifest
from lora_operator.lora_engine.workload import Workload, containers, read

Object = dict[str, Any]

REFUSED_AGAIN_SECONDS: Final = 30.0
"""A Deployment that is not adopted has no watch of ours."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What to write, in the order of the fields, and what to tell."""

    secret: dict[str, str] | None = None
    """What the Secret is to hold, where it holds something else."""
    manifest: Manifest | None = None
    """None: no Deployment is adopted, and nothing lies beside the engine."""
    record: Record | None = None
    """The record that holds from now on."""
    write_record: bool = False
    apply: bool = False
    """Whether the record's patch is to be applied."""
    stamp: Record | None = None
    """The record to write once our fields, which somebody removed, are back."""
    adopted: bool = False
    """Whether our fields stand in the Deployment already."""
    workload: Workload | None = None
    refusal: Refusal | None = None

    @property
    def after(self) -> float | None:
        """Return the seconds after which to look again."""
        problem = self.refusal or (self.manifest.problem if self.manifest else None)
        return REFUSED_AGAIN_SECONDS if problem else None


def plan(observed: Observed, *, now: datetime) -> Plan:
    """Return what this pass is to write."""
    found = read(observed.engine, observed.deployment, trap=observed.trap, rivals=observed.rivals)
    if isinstance(found, Refusal):
        return _keep(observed, now=now, refusal=found, workload=None)
    record = adoption.make(
        observed.engine,
        found,
        before=observed.record,
        live_image=adoption.live_image(observed.deployment) if observed.deployment else None,
        defaults=observed.defaults,
    )
    if record == observed.record and not adoption.in_place(record.patch, observed.deployment):
        return _put_back(observed, record, found, now=now)
    manifest, secret = _content(observed, found, now=now)
    return Plan(
        secret=secret,
        manifest=manifest,
        record=record,
        write_record=_record_differs(observed, record),
        apply=record != observed.record,
        adopted=adoption.in_place(record.patch, observed.deployment),
        workload=found,
    )


def _put_back(observed: Observed, record: Record, workload: Workload, *, now: datetime) -> Plan:
    """Plan for a Deployment that lacks fields which the record says it had: once an hour they are put back."""
    if record.contended(now):
        other = last_other_manager(observed.deployment or {"metadata": {}})
        refusal = Refusal(
            EngineCondition.CONTENDED,
            f"{other} removed what adopting added twice within an hour, so it stays removed for an hour: let it apply"
            " (kubectl apply, server-side apply) rather than replace the Deployment",
        )
        return _keep(observed, now=now, refusal=refusal, workload=workload)
    manifest, secret = _content(observed, workload, now=now)
    told = observed.engine.status.conditions if observed.engine.status else ()
    removed = conditions.is_true(told, EngineCondition.ADOPTED)
    return Plan(
        secret=secret,
        manifest=manifest,
        record=record,
        write_record=_record_differs(observed, record),
        apply=True,
        stamp=record.model_copy(update={"reverted": now}) if removed else None,
        workload=workload,
    )


def _keep(observed: Observed, *, now: datetime, refusal: Refusal, workload: Workload | None) -> Plan:
    """Plan for a Deployment that is left as it is; what was adopted before keeps its manifest."""
    record = observed.record
    if record is None:
        return Plan(refusal=refusal, workload=workload)
    manifest, secret = _content(observed, workload, now=now)
    return Plan(
        secret=secret,
        manifest=manifest,
        record=record,
        adopted=adoption.in_place(record.patch, observed.deployment),
        workload=workload,
        refusal=refusal,
    )


def _content(observed: Observed, workload: Workload | None, *, now: datetime) -> tuple[Manifest, dict[str, str] | None]:
    """Return the manifest, and what the Secret is to hold where that is something else."""
    manifest = plan_manifest(observed.holders, observed.shards, adopted=observed.record is not None, now=now)
    before = observed.secret_data
    api_key = before.get(ENGINE_API_KEY) if workload is None else _open_api_key(workload, observed)
    wanted = next_data(before, manifest.entries, tokens=observed.tokens, api_key=api_key, now=now)
    return manifest, wanted if wanted != before else None


def _open_api_key(workload: Workload, observed: Observed) -> str | None:
    """Return the engine's API key where it stands in the pod template itself."""
    if observed.deployment is None or workload.api_key is None or workload.api_key.secret:
        return None
    engine = next(item for item in containers(observed.deployment) if item["name"] == workload.container)
    return vllm.literal_api_key(engine)


def _record_differs(observed: Observed, record: Record) -> bool:
    wanted = adoption.config_map(observed.engine, record)
    present = observed.config_maps.get(wanted["metadata"]["name"])
    return present is None or not wanted["data"].items() <= (present.get("data") or {}).items()
