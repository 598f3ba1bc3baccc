"""The table of refusals, and what is read of a Deployment that can be adopted."""

from __future__ import annotations

from typing import Any

import pytest

from lora_operator.api import LoRAEngine
from lora_operator.engines.refusal import Refusal
from lora_operator.engines.vllm import literal_api_key
from lora_operator.lora_engine.workload import ApiKey, Workload, read
from support.objects import BASE, make_container, make_deployment, make_engine

Object = dict[str, Any]
UPDATES = "VLLM_ALLOW_RUNTIME_LORA_UPDATING"


def owned() -> Object:
    deployment = make_deployment()
    deployment["metadata"]["ownerReferences"] = [{"kind": "LLMService", "name": "boss", "controller": True}]
    return deployment


def with_args(*args: str) -> Object:
    return make_deployment("vllm-llama", make_container(args=["--model", BASE, "--enable-lora", *args]))


def with_updates(value: Object, *, manager: str) -> Object:
    deployment = make_deployment("vllm-llama", make_container(env=[{"name": UPDATES} | value]))
    field: Object = {"f:containers": {'k:{"name":"vllm"}': {"f:env": {f'k:{{"name":"{UPDATES}"}}': {"f:value": {}}}}}}
    fields = {"f:spec": {"f:template": {"f:spec": field}}}
    deployment["metadata"]["managedFields"] = [{"manager": manager, "operation": "Apply", "fieldsV1": fields}]
    return deployment


SCRIPT = make_container(command=["bash", "/start-vllm.sh"], image="example.org/vllm:1", args=[])


@pytest.mark.parametrize(
    ("spec", "deployment", "reason", "fix"),
    [
        pytest.param({}, None, "DeploymentNotFound", "spec.targetRef.name", id="no Deployment"),
        pytest.param({}, owned(), "OwnedByController", "LLMService boss", id="another controller's"),
        pytest.param(
            {"container": "x"}, make_deployment(), "EngineContainerNotFound", "one of vllm", id="no such container"
        ),
        pytest.param(
            {},
            make_deployment("vllm-llama", make_container("a"), make_container("b")),
            "EngineContainerNotFound",
            "spec.container to one of a, b",
            id="two engines",
        ),
        pytest.param(
            {},
            make_deployment("vllm-llama", make_container(command=["nginx"], args=[])),
            "NotVLLM",
            "set spec.container",
            id="something else",
        ),
        pytest.param(
            {"container": "vllm"},
            make_deployment("vllm-llama", make_container(command=["nginx"], args=[])),
            "NotVLLM",
            "spec.flags",
            id="something else, by name",
        ),
        pytest.param(
            {}, make_deployment("vllm-llama", SCRIPT), "FlagsUnreadable", "spec.flags.maxLoraRank", id="a script file"
        ),
        pytest.param(
            {"flags": {"maxLoraRank": 16}},
            make_deployment("vllm-llama", SCRIPT),
            "FlagsUnreadable",
            "spec.baseModel",
            id="a script file and half of what it hides",
        ),
        pytest.param(
            {},
            make_deployment("vllm-llama", make_container(args=["--model", BASE])),
            "LoRANotEnabled",
            "add --enable-lora to container vllm",
            id="no adapters",
        ),
        pytest.param(
            {}, with_args("--api-server-count", "2"), "ApiServerCount", "--api-server-count 1", id="API servers"
        ),
        pytest.param(
            {}, with_args("--data-parallel-size=2"), "ApiServerCount", "--api-server-count 1", id="data parallel"
        ),
        pytest.param({}, with_args("--uds", "/tmp/s"), "UnixSocket", "remove --uds", id="a Unix socket"),
        pytest.param({}, with_args("--host", "10.0.0.5"), "HostNotLocal", "--host 0.0.0.0", id="one address"),
        pytest.param({}, with_args("--host", "::1"), "HostNotLocal", "--host 0.0.0.0", id="the other loopback"),
        pytest.param({}, with_args("--host=$(POD_IP)"), "HostNotLocal", "$(POD_IP)", id="an address to come"),
        pytest.param(
            {"flags": {"maxLoraRank": 16}, "baseModel": BASE},
            with_args("--max-lora-rank", "$(RANK)", "--host", "10.0.0.5"),
            "HostNotLocal",
            "--host 0.0.0.0",
            id="one address beside what can't be read",
        ),
        pytest.param({}, with_args("--ssl-keyfile", "/k"), "EngineTLS", "remove --ssl-keyfile", id="TLS of its own"),
        pytest.param({}, with_args("--nnodes", "2"), "SeveralPods", "--nnodes", id="an engine over several pods"),
        pytest.param(
            {},
            make_deployment("vllm-llama", make_container(args=["--model", "/models/x", "--enable-lora"])),
            "BaseModelUnknown",
            "set spec.baseModel",
            id="a path for a base model",
        ),
        pytest.param(
            {}, with_updates({"value": "0"}, manager="flux"), "FieldConflict", "flux", id="runtime updates off"
        ),
        pytest.param(
            {},
            with_updates({"valueFrom": {"configMapKeyRef": {}}}, manager="helm"),
            "FieldConflict",
            "helm",
            id="runtime updates from elsewhere",
        ),
    ],
)
def test_a_refusal_names_cause_and_fix(spec: Object, deployment: Object | None, reason: str, fix: str) -> None:
    refusal = read(LoRAEngine.model_validate(make_engine(**spec)), deployment, trap=False, rivals=frozenset())

    assert isinstance(refusal, Refusal), refusal
    assert refusal.reason == reason
    assert fix in refusal.message


@pytest.mark.parametrize(
    ("pod", "env", "refused"),
    [
        pytest.param({}, [], True, id="service links are on by default"),
        pytest.param({"enableServiceLinks": True}, [], True, id="on"),
        pytest.param({"enableServiceLinks": False}, [], False, id="off"),
        pytest.param({}, [{"name": "VLLM_PORT", "value": "5555"}], False, id="the variable is set"),
    ],
)
def test_a_service_called_vllm_is_a_trap_with_service_links(pod: Object, env: list[Object], refused: bool) -> None:
    deployment = make_deployment("vllm-llama", make_container(env=env), **pod)

    found = read(LoRAEngine.model_validate(make_engine()), deployment, trap=True, rivals=frozenset())

    assert isinstance(found, Refusal) is refused
    if isinstance(found, Refusal):
        assert found.reason == "ServiceLinks"
        assert "enableServiceLinks: false" in found.message


def test_the_only_container_that_names_vllm_is_the_engine() -> None:
    deployment = make_deployment("vllm-llama", {"name": "proxy", "image": "nginx"}, make_container("engine"))

    found = workload(deployment)

    assert (found.container, found.base_model, found.port) == ("engine", BASE, 8000)
    assert found.runtime_updates


def test_what_a_script_hides_can_be_told_by_hand() -> None:
    deployment = make_deployment("vllm-llama", SCRIPT | {"ports": [{"containerPort": 9000}]})

    found = workload(deployment, flags={"maxLoraRank": 64}, baseModel=BASE)

    assert (found.base_model, found.flags.max_lora_rank, found.port) == (BASE, 64, 9000)


@pytest.mark.parametrize(
    ("ports", "args", "port"),
    [
        pytest.param([{"containerPort": 9090, "name": "metrics"}, {"containerPort": 8000}], [], 8000, id="vLLM's own"),
        pytest.param(
            [{"containerPort": 9090, "name": "metrics"}, {"containerPort": 9000, "name": "http"}], [], 9000, id="http"
        ),
        pytest.param([], [], 8000, id="none declared"),
        pytest.param([{"containerPort": 9090}], ["--port", "7000"], 7000, id="--port beside what can't be read"),
        pytest.param([{"containerPort": 9090}], ["--port", "$(PORT)"], 9090, id="a port that can't be read either"),
    ],
)
def test_the_port_of_an_engine_told_by_hand_is_its_api_s(ports: list[Object], args: list[str], port: int) -> None:
    words = ["--model", BASE, "--max-lora-rank", "$(RANK)", *args]
    deployment = make_deployment("vllm-llama", make_container(args=words, ports=ports))

    assert workload(deployment, flags={"maxLoraRank": 64}, baseModel=BASE).port == port


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "127.0.0.1", "localhost"])
def test_an_engine_that_answers_on_127_0_0_1_is_adopted(host: str) -> None:
    assert workload(with_args("--host", host)).port == 8000


@pytest.mark.parametrize(
    ("value", "manager", "ours"),
    [
        pytest.param("true", "kubectl", False, id="the user sets it: left out"),
        pytest.param("1", "kubectl", False, id="in another spelling"),
        pytest.param("True", "lora-operator", True, id="we set it"),
        pytest.param("False", "lora-operator", True, id="somebody changed what we set: the apiserver will tell"),
    ],
)
def test_the_variable_is_left_out_of_the_patch_where_the_user_sets_it(value: str, manager: str, ours: bool) -> None:
    assert workload(with_updates({"value": value}, manager=manager)).runtime_updates is ours


@pytest.mark.parametrize(
    ("model", "served", "spec", "base"),
    [
        pytest.param("a/b", "base", None, "a/b", id="--model"),
        pytest.param("/models/b", "a/b", None, "a/b", id="a path, and an id as its served name"),
        pytest.param("/models/b", "base", "a/b", "a/b", id="spec.baseModel"),
    ],
)
def test_the_base_model_is_an_id_of_the_hub(model: str, served: str, spec: str | None, base: str) -> None:
    args = ["--model", model, "--served-model-name", served, "--enable-lora"]

    assert workload(make_deployment("vllm-llama", make_container(args=args)), baseModel=spec).base_model == base


def test_a_base_model_on_a_volume_is_mounted_by_a_volume_of_our_own() -> None:
    mounts = [{"name": "root", "mountPath": "/m"}, {"name": "models", "mountPath": "/m/llama", "subPath": "v1"}]
    container = make_container(args=["--model", "/m/llama/8b", "--enable-lora"], volumeMounts=mounts)
    claim = {"persistentVolumeClaim": {"claimName": "models"}}
    volumes = [{"name": "root", "emptyDir": {}}, {"name": "models"} | claim]

    found = workload(make_deployment("vllm-llama", container, volumes=volumes), baseModel=BASE)

    assert found.base_path == "/m/llama/8b"
    assert found.base_volume == claim
    assert found.base_mount == {"mountPath": "/m/llama", "subPath": "v1"}


def test_a_volume_of_one_pod_is_not_shared_by_its_source() -> None:
    container = make_container(
        args=["--model", "/m/8b", "--enable-lora"], volumeMounts=[{"name": "m", "mountPath": "/m"}]
    )

    found = workload(make_deployment("vllm-llama", container, volumes=[{"name": "m", "emptyDir": {}}]), baseModel=BASE)

    assert found.base_volume is None
    assert found.base_path is None


@pytest.mark.parametrize(
    ("container", "key", "literal"),
    [
        pytest.param(make_container(), None, None, id="none"),
        pytest.param(
            make_container(args=["--model", BASE, "--enable-lora", "--api-key", "k"]), ApiKey(), "k", id="a flag"
        ),
        pytest.param(make_container(env=[{"name": "VLLM_API_KEY", "value": "k"}]), ApiKey(), "k", id="a variable"),
        pytest.param(
            make_container(env=[{"name": "VLLM_API_KEY", "valueFrom": {"secretKeyRef": {"name": "s", "key": "api"}}}]),
            ApiKey("s", "api"),
            None,
            id="a Secret",
        ),
    ],
)
def test_the_engines_api_key_is_found(container: Object, key: ApiKey | None, literal: str | None) -> None:
    assert workload(make_deployment("vllm-llama", container)).api_key == key
    assert literal_api_key(container) == literal


def workload(deployment: Object, **spec: Any) -> Workload:
    """Read a Deployment that can be adopted."""
    found = read(LoRAEngine.model_validate(make_engine(**spec)), deployment, trap=False, rivals=frozenset())
    assert isinstance(found, Workload), found
    return found


@pytest.mark.parametrize(
    ("rivals", "refused"),
    [pytest.param({"other"}, True, id="it is there"), pytest.param({"third"}, False, id="it is gone")],
)
def test_a_deployment_of_another_engine_is_refused_as_long_as_that_is_there(rivals: set[str], refused: bool) -> None:
    deployment = make_deployment()
    deployment["metadata"]["labels"] = {"lora-operator.io/engine": "other"}

    found = read(LoRAEngine.model_validate(make_engine()), deployment, trap=False, rivals=frozenset(rivals))

    assert isinstance(found, Refusal) is refused
    if isinstance(found, Refusal):
        assert (found.reason, "LoRAEngine other" in found.message) == ("TargetTaken", True)
