"""The record of an adoption: the patch as it was applied, and what it was made from. Pure.

Kept in a ConfigMap beside the manifest. A newer operator makes the same patch from it, so that it restarts no pod; the
patch is made anew only when the LoRAEngine or the engine's own command line changes.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from datetime import datetime, timedelta
from typing import Any, Final

from pydantic import ValidationError

from lora_operator.api import LoRAEngine
from lora_operator.lora_engine import manifests
from lora_operator.lora_engine.manifests import Defaults
from lora_operator.lora_engine.workload import Workload
from lora_operator.protocol.manifest import Wire

Object = dict[str, Any]

RECORD_KEY: Final = "adoption.json"
REVERT_WINDOW: Final = timedelta(hours=1)
"""A Deployment that loses our fields twice within this time belongs to somebody who doesn't want them."""
_FLAGS_OF_THE_PATCH: Final = {"max_lora_rank", "dtype", "lora_dtype", "lora_target_modules"}
_MERGE_KEYS: Final = ("name", "mountPath", "containerPort")


class Record(Wire):
    """One adoption, as its ConfigMap holds it."""

    inputs: Object
    image: str
    patch: Object
    reverted: datetime | None = None
    """When our fields were last put back."""

    @classmethod
    def read(cls, config_map: Object | None) -> Record | None:
        """Return the record; None where there is none that can be read."""
        text = ((config_map or {}).get("data") or {}).get(RECORD_KEY)
        try:
            return cls.model_validate_json(text) if text else None
        except ValidationError:
            return None

    def contended(self, now: datetime) -> bool:
        """Tell whether another loss of our fields now is the second within the window."""
        return self.reverted is not None and now - self.reverted < REVERT_WINDOW


def make(
    engine: LoRAEngine, workload: Workload, *, before: Record | None, live_image: str | None, defaults: Defaults
) -> Record:
    """Return the record that holds now: `before` itself where nothing changed that it was made from."""
    inputs = _inputs(engine, workload)
    if before is not None and before.inputs == _as_read_before(inputs, before):
        return before
    image = engine.spec.agent.image or _kept_image(inputs, before, live_image) or defaults.image
    content = manifests.injection(engine, workload, image=image, defaults=defaults)
    patch = manifests.deployment_patch(engine, workload.container, content)
    return Record(inputs=inputs, image=image, patch=patch)


def config_map(engine: LoRAEngine, record: Record) -> Object:
    """Return the ConfigMap that keeps the record."""
    obj = manifests.beside(engine, "ConfigMap", manifests.adoption_name(engine.metadata.name))
    return obj | {"data": {RECORD_KEY: record.model_dump_json(by_alias=True)}}


def live_image(deployment: Object) -> str | None:
    """Return the image of the agent that stands in the pod template."""
    agents = deployment["spec"]["template"]["spec"].get("initContainers") or []
    return next((agent["image"] for agent in agents if agent["name"] == manifests.AGENT), None)


def in_place(patch: Any, live: Any) -> bool:
    """Tell whether every field of a patch stands in the live object; lists are matched by their merge keys."""
    if isinstance(patch, dict):
        return isinstance(live, dict) and all(in_place(value, live.get(name)) for name, value in patch.items())
    if isinstance(patch, list):
        return isinstance(live, list) and _items_in_place(patch, live)
    return bool(patch == live) or _same_quantity(patch, live)


def _items_in_place(patch: list[Any], live: list[Any]) -> bool:
    key = next((key for key in _MERGE_KEYS if patch and isinstance(patch[0], dict) and key in patch[0]), None)
    if key is None:
        return len(patch) == len(live) and all(in_place(mine, theirs) for mine, theirs in zip(patch, live, strict=True))
    key = "mountPath" if "mountPath" in patch[0] else key
    by_key = {item.get(key): item for item in live}
    return all(in_place(item, by_key.get(item[key])) for item in patch)


def _same_quantity(mine: Any, theirs: Any) -> bool:
    """Tell whether two amounts are equal: the apiserver writes `1024Mi` as `1Gi`."""
    if not isinstance(mine, str | int) or not isinstance(theirs, str | int):
        return False
    try:
        return manifests.amount(mine) == manifests.amount(theirs)
    except ValueError:
        return False


def _inputs(engine: LoRAEngine, workload: Workload) -> Object:
    """Return, as JSON, all that users say and the patch depends on; not what the operator was installed with."""
    agent = engine.spec.agent.model_dump(mode="json", by_alias=True, exclude_none=True)
    flags = workload.flags.model_dump(mode="json", by_alias=True, include=_FLAGS_OF_THE_PATCH)
    facts = asdict(workload) | {"flags": flags}
    read: Object = json.loads(json.dumps({"engine": engine.metadata.name, "agent": agent, "workload": facts}))
    return read


def _as_read_before(inputs: Object, before: Record) -> Object:
    """Return the inputs without the flags that the operator of the record did not read: they are no change."""
    known = before.inputs.get("workload", {}).get("flags", {}).keys()
    facts = inputs["workload"]
    flags = {name: value for name, value in facts["flags"].items() if name in known}
    return inputs | {"workload": facts | {"flags": flags}}


def _kept_image(inputs: Object, before: Record | None, live_image: str | None) -> str | None:
    """Return the agent's image that stays: it changes only when spec.agent.image does."""
    if before is None:
        return live_image
    return before.image if before.inputs["agent"].get("image") == inputs["agent"].get("image") else None
