"""Pull secrets of the installation reach the pods of somebody's Deployment, beside his own, and go when we leave."""

from __future__ import annotations

from typing import Any

from localcluster import ControlPlane
from lora_operator.api import LoRAEngine
from lora_operator.engines.refusal import Refusal
from lora_operator.labels import FIELD_MANAGER
from lora_operator.lora_engine import manifests
from lora_operator.lora_engine.manifests import Defaults
from lora_operator.lora_engine.workload import read
from support.objects import make_deployment, make_engine
from support.site import Site

Object = dict[str, Any]


def pod_spec(deployment: Object) -> Object:
    spec: Object = deployment["spec"]["template"]["spec"]
    return spec


def names(deployment: Object) -> list[str]:
    return [secret["name"] for secret in pod_spec(deployment)["imagePullSecrets"]]


def test_pull_secrets_are_added_beside_his_and_go_with_us(kinds: ControlPlane) -> None:
    site = Site.made(kinds, "pull-secrets")
    made = make_deployment(imagePullSecrets=[{"name": "his"}, {"name": "shared"}])
    made["metadata"] = {"name": made["metadata"]["name"], "namespace": site.namespace}
    user = site.apply(made, "--server-side")
    body = make_engine()
    body["metadata"]["namespace"] = site.namespace
    engine = LoRAEngine.model_validate(body)
    workload = read(engine, user, trap=False, rivals=frozenset())
    assert not isinstance(workload, Refusal), workload.message
    defaults = Defaults(image="example.org/agent:1", resources={}, image_pull_secrets=("shared", "mirror"))
    content = manifests.injection(engine, workload, image=defaults.image, defaults=defaults)
    as_us = ("--server-side", f"--field-manager={FIELD_MANAGER}")

    adopted = site.apply(manifests.deployment_patch(engine, workload.container, content), *as_us)
    assert names(adopted) == ["his", "shared", "mirror"]

    left = site.apply(manifests.release_patch(engine), *as_us)
    assert pod_spec(left) == pod_spec(user)
