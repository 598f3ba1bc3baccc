"""The main job on real parts: two nodes, two vLLM pods, the chart, a trainer's pod; and what goes wrong with them.

The tests of this file tell one story, in order: each starts where the one before it ended.
"""

from __future__ import annotations

import json
import subprocess
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import httpx2
import pytest
import yaml
from huggingface_hub import snapshot_download

from imagebuild.engine import REPOSITORY
from quickstart import hub, install, manifests
from quickstart.stage import TINY_MODEL, TOKEN, Stage
from support.adapters import TINY_LLAMA, AdapterFiles, make_adapter
from support.loop import DEADLINE, Loop, condition, identities, is_ready
from support.operating import eventually
from tinymodel import cached as tinymodel

pytestmark = [
    pytest.mark.timeout(1800),
    # huggingface_hub 2.4 itself calls its HTTP client in a way that this has deprecated.
    pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning"),
]

Object = dict[str, Any]

ENGINE = "vllm-tiny"
JOB = "support-bot-v1"
ADAPTER = "support-bot"
EXAMPLE = REPOSITORY / "examples" / "01-quickstart"
PROMPTS = ["How do I reset my password?", "def main(", "Thank you!"]
READY_TIMEOUT = 30


@dataclass
class Story:
    """What the tests leave for each other."""

    loop: Loop
    before: dict[str, int]
    """The engine's pods and their restarts before there was any adapter."""

    @property
    def model(self) -> str:
        """What the engine calls the trained adapter."""
        adapter = self.loop.get("loraadapter", ADAPTER)
        assert adapter is not None
        name: str = adapter["status"]["current"]["engineName"]
        return name


@pytest.fixture(scope="module")
def story(on_stage: Stage) -> Story:
    """Let the operator adopt an engine without pods, which spares their rollout, then start two, one a node."""
    loop = Loop(on_stage, "demo")
    on_stage.kubectl("apply", "--filename", "-", stdin=json.dumps(manifests.namespace("demo")))
    loop.apply(*manifests.environment_volume("demo", on_stage.environment), _secret("hf", TOKEN))
    loop.apply(
        *manifests.engine(ENGINE, in_namespace="demo", model=TINY_MODEL, hub_url=on_stage.hub_url, replicas=0),
        _engine(),
    )
    loop.until("loraengine", ENGINE, lambda engine: condition(engine, "Adopted").get("status") == "True", "adopted")
    _scale(loop, 2)
    on_stage.kubectl("rollout", "status", f"deployment/{ENGINE}", "--namespace", "demo", "--timeout=15m")
    loop.until_ready("loraengine", ENGINE)
    return Story(loop, identities(loop.engine_pods()))


def test_training_ends_in_a_loaded_adapter_though_the_operator_is_killed_twice(story: Story) -> None:
    loop = story.loop
    for name in ("2-dataset.yaml", "3-training-job.yaml"):
        loop.apply(*yaml.safe_load_all((EXAMPLE / name).read_text()))
    loop.until("loratrainingjob", JOB, lambda job: job.get("status", {}).get("trainerStatus"), "in training")
    _kill_operator(loop)
    eventually(lambda: loop.get("loraadapter", ADAPTER), "the LoRAAdapter of the job", deadline=900)
    _kill_operator(loop)
    job = loop.until_ready("loratrainingjob", JOB)
    adapter = loop.until_ready("loraadapter", ADAPTER)
    assert job["status"]["artifact"]["commit"] == adapter["status"]["current"]["revision"]
    assert adapter["status"]["replicas"] == {"desired": 2, "loaded": 2}
    assert len(loop.list("pods", f"--selector=lora-operator.io/training-job={JOB}")) == 1


def test_the_engine_s_status_tells_what_adapters_are_judged_by(story: Story) -> None:
    engine = story.loop.get("loraengine", ENGINE)
    assert engine is not None
    assert engine["status"]["engine"] == {"version": "0.32.0", "device": "cpu"}, "by the real vLLM's own word"
    assert (engine["status"]["flags"]["dtype"], engine["status"]["flags"]["loraDtype"]) == ("float32", "auto")


def test_no_engine_pod_was_restarted_by_it(story: Story) -> None:
    assert identities(story.loop.engine_pods()) == story.before


def test_every_pod_answers_as_peft_does_with_and_without_the_adapter(story: Story, tmp_path: Path) -> None:
    loop = story.loop
    adapter = loop.get("loraadapter", ADAPTER)
    assert adapter is not None
    folder = snapshot_download(
        "acme/support-bot",
        revision=adapter["status"]["current"]["revision"],
        endpoint=loop.stage.hub_url,
        token=TOKEN,
        local_dir=tmp_path / "adapter",
    )
    expected = _peft(Path(folder), max_tokens=12)
    for pod in loop.engine_pods():
        for number, prompt in enumerate(PROMPTS):
            # One after the other: on CPUs a base request and an adapter's share no batch (vllm-project/vllm#48421).
            assert loop.ask(pod, TINY_MODEL, prompt, max_tokens=12) == expected["base"][number]
            assert loop.ask(pod, story.model, prompt, max_tokens=12) == expected["adapter"][number]
    assert expected["base"] != expected["adapter"]


def test_an_engine_killed_in_its_pod_gets_its_adapter_back_without_the_operator(story: Story) -> None:
    loop = story.loop
    pod = loop.engine_pods()[0]
    answer = loop.ask(pod, story.model, PROMPTS[0])
    _scale_operator(loop, 0)
    try:
        loop.stage.cluster.kill_container("demo", pod["metadata"]["name"], "vllm")
        eventually(lambda: not loop.models(pod), "the engine to be gone")
        eventually(lambda: story.model in loop.models(pod), "the adapter to be back", deadline=600)
        assert loop.ask(pod, story.model, PROMPTS[0]) == answer
    finally:
        _scale_operator(loop, 1)


def test_a_pod_added_by_scaling_is_not_ready_before_it_has_the_adapter(story: Story) -> None:
    loop = story.loop
    new = _scale_to_three(loop)

    def ready() -> bool:
        pod = loop.get("pods", new)
        assert pod is not None
        if not is_ready(pod):
            return False
        assert story.model in loop.models(pod)
        return True

    eventually(ready, f"pod {new} to be Ready", deadline=600)
    _scale(loop, 2)


def test_with_the_hub_down_a_new_pod_serves_the_base_in_time_and_gets_the_adapter_later(story: Story) -> None:
    loop = story.loop
    _fault(loop, match=".*acme/support-bot.*", status=503, times=-1)
    try:
        new = _scale_to_three(loop)
        pod = loop.until("pods", new, is_ready, "Ready without the adapter")
        assert story.model not in loop.models(pod)
        assert loop.ask(pod, TINY_MODEL, PROMPTS[0])
    finally:
        _clear_faults(loop)
    eventually(lambda: story.model in loop.models(pod), "the adapter, now that the Hub is well", deadline=300)
    _scale(loop, 2)


def test_another_agent_image_in_the_chart_restarts_no_engine_pod(story: Story) -> None:
    loop = story.loop
    before = identities(loop.engine_pods())
    values = install.values(loop.stage)
    install.install(loop.stage, more={"agent": values["agent"] | {"image": {"tag": "of-tomorrow"}}})
    loop.until(
        "loraengine", ENGINE, lambda engine: condition(engine, "AgentOutdated").get("status") == "True", "outdated"
    )
    assert identities(loop.engine_pods()) == before
    install.install(loop.stage)


@pytest.mark.parametrize(
    ("name", "make", "reason", "told"),
    [
        ("rank-too-high", lambda: make_adapter(rank=64), "RankTooHigh", "--max-lora-rank"),
        ("other-base", lambda: make_adapter(base=_half_as_wide()), "ShapeMismatch", "q_proj"),
        ("not-finite", lambda: make_adapter().spoilt(nan=True), "NotFinite", "weight"),
    ],
)
def test_a_bad_adapter_is_refused_by_name_and_the_good_one_goes_on(
    story: Story, name: str, make: Any, reason: str, told: str
) -> None:
    loop = story.loop
    answer = loop.ask(loop.engine_pods()[0], story.model, PROMPTS[0])
    _publish(loop, f"acme/{name}", make())
    loop.apply(_adapter(name, f"acme/{name}"))
    refused = loop.until_refused("loraadapter", name, reason)
    assert told in condition(refused, "Ready")["message"]
    _told_by_an_event(loop, name, reason)
    loop.delete("loraadapter", name)
    assert loop.ask(loop.engine_pods()[0], story.model, PROMPTS[0]) == answer


def test_a_private_repository_without_a_token_names_the_field(story: Story) -> None:
    loop = story.loop
    _publish(loop, "acme/private", make_adapter(), private=True)
    loop.apply(_adapter("no-token", "acme/private"))
    refused = loop.until_refused("loraadapter", "no-token", "HubUnauthorized")
    assert "spec.source.hub.tokenSecretRef" in condition(refused, "Ready")["message"]
    _told_by_an_event(loop, "no-token", "HubUnauthorized")
    loop.delete("loraadapter", "no-token")


def test_a_file_changed_after_it_was_pinned_is_not_loaded(story: Story) -> None:
    loop = story.loop
    _publish(loop, "acme/tampered", make_adapter(seed=7))
    url = f"{loop.stage.hub_url}/_test/tamper"
    body = {"repo": "acme/tampered", "path": "adapter_model.safetensors"}
    httpx2.post(url, json=body).raise_for_status()
    try:
        loop.apply(_adapter("tampered", "acme/tampered"))
        refused = loop.until_refused("loraadapter", "tampered", "DigestMismatch")
        assert "adapter_model.safetensors" in condition(refused, "Ready")["message"]
        _told_by_an_event(loop, "tampered", "DigestMismatch")
    finally:
        httpx2.request("DELETE", url, json=body).raise_for_status()
    loop.delete("loraadapter", "tampered")


def test_the_hub_may_be_down_for_a_while(story: Story) -> None:
    loop = story.loop
    _publish(loop, "acme/patient", make_adapter(seed=9))
    _fault(loop, match=".*acme/patient.*", status=503, times=-1)
    try:
        loop.apply(_adapter("patient", "acme/patient"))
        loop.until_refused("loraadapter", "patient", "HubUnavailable")
    finally:
        _clear_faults(loop)
    loop.until_ready("loraadapter", "patient")
    loop.delete("loraadapter", "patient")


def test_a_trainer_out_of_memory_names_the_limit(story: Story) -> None:
    loop = story.loop
    job = yaml.safe_load((EXAMPLE / "3-training-job.yaml").read_text())
    job["metadata"]["name"] = "too-small"
    job["spec"]["output"] = {"hub": job["spec"]["output"]["hub"] | {"repo": "acme/too-small"}}
    job["spec"]["resources"] = {"requests": {"memory": "128Mi"}, "limits": {"memory": "128Mi"}}
    job["spec"]["backoffLimit"] = 0
    loop.apply(job)
    refused = loop.until_refused("loratrainingjob", "too-small", "OutOfMemory")
    assert condition(refused, "Failed")["status"] == "True"
    assert "spec.resources.limits.memory" in condition(refused, "Ready")["message"]
    _told_by_an_event(loop, "too-small", "OutOfMemory")
    loop.delete("loratrainingjob", "too-small")


def test_deleting_the_training_job_leaves_the_repository_and_the_adapter(story: Story) -> None:
    loop = story.loop
    selector = f"--selector=lora-operator.io/training-job={JOB}"
    assert loop.list("jobs", selector)
    loop.delete("loratrainingjob", JOB)
    for kind in ("jobs", "pods"):
        eventually(lambda kind=kind: not loop.list(kind, selector), f"no {kind} of the job")  # type: ignore[misc]
    eventually(lambda: not _config_maps_of(loop, JOB), "no ConfigMap of the job")
    assert condition(loop.get("loraadapter", ADAPTER) or {}, "Ready")["status"] == "True"
    assert httpx2.get(f"{loop.stage.hub_url}/api/models/acme/support-bot", headers=_bearer()).status_code == 200


def test_deleting_the_adapter_makes_engines_forget_it_and_removes_its_files(story: Story) -> None:
    loop = story.loop
    model, pods = story.model, loop.engine_pods()
    assert all(loop.adapter_files(pod) for pod in pods)
    loop.delete("loraadapter", ADAPTER)
    for pod in pods:
        assert model not in loop.models(pod)
        eventually(lambda pod=pod: not loop.adapter_files(pod), "the files to be gone")  # type: ignore[misc]


def test_after_helm_uninstall_a_tenants_namespace_goes_within_a_minute(story: Story) -> None:
    loop = story.loop
    loop.apply(_adapter("left", "acme/patient"))
    loop.until_ready("loraadapter", "left")
    install.uninstall(loop.stage)
    loop.stage.kubectl("delete", "namespace", "demo", "--timeout=60s")


def _engine() -> Object:
    engine: Object = yaml.safe_load((EXAMPLE / "1-engine.yaml").read_text())
    engine["spec"]["agent"]["readyTimeoutSeconds"] = READY_TIMEOUT
    return engine


def _adapter(name: str, repo: str) -> Object:
    return {
        "apiVersion": "lora-operator.io/v1alpha1",
        "kind": "LoRAAdapter",
        "metadata": {"name": name},
        "spec": {"source": {"hub": {"repo": repo}}, "baseModel": TINY_MODEL, "engineRef": {"name": ENGINE}},
    }


def _secret(name: str, token: str) -> Object:
    return {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "stringData": {"token": token}}


def _half_as_wide() -> Any:
    return replace(TINY_LLAMA, hidden=64)


def _peft(folder: Path, *, max_tokens: int) -> dict[str, list[str]]:
    asked = {
        "model": str(tinymodel.ensure()),
        "adapter": str(folder),
        "prompts": PROMPTS,
        "max_tokens": max_tokens,
    }
    script = Path(__file__).parents[1] / "support" / "peft_answers.py"
    python = REPOSITORY / ".local" / "engine" / "bin" / "python"
    done = subprocess.run([python, script], input=json.dumps(asked), text=True, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    answers: dict[str, list[str]] = json.loads(done.stdout.splitlines()[-1])
    return answers


def _kill_operator(loop: Loop) -> None:
    """End the operator's container at once, as the kernel would, and wait until kubelet has started another."""

    def restarts() -> dict[str, int]:
        pods = loop.list("pods", "--selector=app.kubernetes.io/name=lora-operator", namespace=install.NAMESPACE)
        return {
            pod["metadata"]["name"]: pod["status"]["containerStatuses"][0]["restartCount"]
            for pod in pods
            if is_ready(pod) and "deletionTimestamp" not in pod["metadata"]
        }

    ((name, before),) = eventually(restarts, "the operator to run").items()
    loop.stage.cluster.kill_container(install.NAMESPACE, name, "operator")
    eventually(lambda: restarts().get(name, before) > before, "the operator to run again", deadline=DEADLINE)


def _scale_operator(loop: Loop, replicas: int) -> None:
    where = ("--namespace", install.NAMESPACE)
    loop.stage.kubectl("scale", f"deployment/{install.RELEASE}", f"--replicas={replicas}", *where)
    selector = "--selector=app.kubernetes.io/name=lora-operator"

    def scaled() -> bool:
        pods = loop.list("pods", selector, namespace=install.NAMESPACE)
        return len(pods) == replicas and all(map(is_ready, pods))

    eventually(scaled, f"{replicas} operators", deadline=300)


def _scale(loop: Loop, replicas: int) -> None:
    loop.stage.kubectl("scale", f"deployment/{ENGINE}", f"--replicas={replicas}", "--namespace", "demo")
    eventually(lambda: len(loop.engine_pods()) == replicas, f"{replicas} engine pods", deadline=300)


def _scale_to_three(loop: Loop) -> str:
    """Add a pod and return its name."""
    old = {pod["metadata"]["name"] for pod in loop.engine_pods()}
    _scale(loop, 3)
    return next(pod["metadata"]["name"] for pod in loop.engine_pods() if pod["metadata"]["name"] not in old)


def _publish(loop: Loop, repo: str, adapter: AdapterFiles, *, private: bool = False) -> None:
    with TemporaryDirectory() as folder:
        adapter.write(Path(folder))
        hub.publish(loop.stage.hub_url, repo, Path(folder), token=TOKEN, private=private)


def _fault(loop: Loop, **fault: Any) -> None:
    httpx2.post(f"{loop.stage.hub_url}/_test/fault", json=fault).raise_for_status()


def _clear_faults(loop: Loop) -> None:
    httpx2.delete(f"{loop.stage.hub_url}/_test/fault").raise_for_status()


def _told_by_an_event(loop: Loop, name: str, reason: str) -> None:
    eventually(lambda: any(event["reason"] == reason for event in loop.events_of(name)), f"an Event {reason}")


def _config_maps_of(loop: Loop, job: str) -> list[Object]:
    return [
        found
        for found in loop.list("configmaps")
        if any(owner["name"] == job for owner in found["metadata"].get("ownerReferences", []))
    ]


def _bearer() -> dict[str, str]:
    return {"Authorization": f"Bearer {TOKEN}"}
