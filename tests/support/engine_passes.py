"""What an engine pass observed, built without an apiserver: a user's Deployment, and ours merged into it."""

from __future__ import annotations

import copy
from typing import Any

from lora_operator import labels
from lora_operator.api import LoRAEngine
from lora_operator.lora_engine import adoption
from lora_operator.lora_engine.manifests import Defaults, shard_object
from lora_operator.lora_engine.observed import Observed
from lora_operator.lora_engine.plan import Plan
from lora_operator.lora_engine.secret import secret_object
from support.objects import make_deployment, make_engine

Object = dict[str, Any]

DEFAULTS = Defaults(image="example.org/agent:1", resources={"limits": {"memory": "256Mi"}})
_KEYS = ("mountPath", "name", "containerPort")


def make_observed(engine: Object | None = None, deployment: Object | None = None, **given: Any) -> Observed:
    """Return what a first pass observes."""
    obj = make_engine() if engine is None else engine
    values: dict[str, Any] = {
        "trap": False,
        "rivals": frozenset(),
        "config_maps": {},
        "secret": None,
        "pods": (),
        "reports": {},
        "holders": {},
        "tokens": {},
        "defaults": DEFAULTS,
    }
    return Observed(
        engine=LoRAEngine.model_validate(obj),
        obj=obj,
        deployment=make_deployment() if deployment is None else deployment,
        **(values | given),
    )


def carried_out(observed: Observed, todo: Plan, **given: Any) -> Observed:
    """Return what the next pass observes once a plan is carried out: merged the way server-side apply merges."""
    config_maps = dict(observed.config_maps)
    record = todo.stamp or todo.record
    written = [shard_object(observed.engine, shard) for shard in (todo.manifest.writes if todo.manifest else ())]
    if record is not None and (todo.write_record or todo.stamp):
        written.append(adoption.config_map(observed.engine, record))
    config_maps |= {obj["metadata"]["name"]: obj for obj in written}
    deployment = observed.deployment
    if deployment is not None and todo.apply and todo.record is not None:
        deployment = applied(deployment, todo.record.patch)
    values = {
        "config_maps": config_maps,
        "secret": secret_object(observed.engine, todo.secret) if todo.secret is not None else observed.secret,
    }
    kept = {name: getattr(observed, name) for name in ("pods", "reports", "holders", "tokens", "defaults")}
    return make_observed(observed.obj, deployment, **(kept | values | given))


def applied(live: Object, patch: Object) -> Object:
    """Return a live object after our manager's apply, with what managedFields then tells."""
    after: Object = merged(live, patch)
    managed = {"manager": labels.FIELD_MANAGER, "operation": "Apply", "fieldsV1": fields(patch)}
    after["metadata"]["managedFields"] = [managed]
    return after


def fields(patch: Any) -> Object:
    """Return the fields of a patch in the form of managedFields."""
    if isinstance(patch, dict):
        return {f"f:{name}": fields(value) for name, value in patch.items()}
    if isinstance(patch, list) and patch and isinstance(patch[0], dict) and "name" in patch[0]:
        return {f'k:{{"name":"{item["name"]}"}}': fields(item) for item in patch}
    return {}


def merged(live: Any, patch: Any) -> Any:
    """Return a live object with a patch merged into it: maps by key, lists by their items' keys."""
    if isinstance(live, dict) and isinstance(patch, dict):
        return live | {name: merged(live.get(name), value) for name, value in patch.items()}
    key = next((key for key in _KEYS if isinstance(patch, list) and patch and key in patch[0]), None)
    if not isinstance(live, list) or key is None:
        return copy.deepcopy(patch)
    ours = {item[key]: item for item in patch}
    theirs = {item[key] for item in live}
    return [merged(item, ours.get(item[key], {})) for item in live] + [
        item for name, item in ours.items() if name not in theirs
    ]
