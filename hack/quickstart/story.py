"""The main job, told step by step: install, train, publish, serve, ask. Every step may be run again."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import httpx2
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from machine.progress import console, step
from quickstart import install, manifests
from quickstart.stage import TINY_MODEL, TOKEN, Stage

EXAMPLE: Final = Path(__file__).resolve().parents[2] / "examples" / "01-quickstart"
NAMESPACE: Final = "demo"
ENGINE: Final = "vllm-tiny"
JOB: Final = "support-bot-v1"
ADAPTER: Final = "support-bot"
PROMPT: Final = "How do I reset my password?"
POLL_SECONDS: Final = 0.5
CONNECT_RETRIES: Final = 6
"""With the client's own back-off: about half a minute."""
PATIENCE_SECONDS: Final = 600.0

Object = dict[str, Any]


def tell(stage: Stage) -> None:
    """Do the main job on a stage that is up."""
    with step("installing the operator with helm"):
        install.install(stage)
    with step("starting vLLM with the tiny model", estimate="30 s"):
        _apply(stage, [manifests.namespace(NAMESPACE)])
        _apply(stage, manifests.environment_volume(NAMESPACE, stage.environment))
        _apply(stage, [_token_secret()])
        _apply(stage, manifests.engine(ENGINE, in_namespace=NAMESPACE, model=TINY_MODEL, hub_url=stage.hub_url))
        _rolled_out(stage)
    console.print(f"  [bold]kubectl apply -n {NAMESPACE} -f {EXAMPLE.relative_to(EXAMPLE.parents[1])}[/]")
    stage.kubectl("apply", "--namespace", NAMESPACE, "--filename", str(EXAMPLE))
    _train(stage)
    with step("adopting the engine: its pods come back with the agent, one rollout", estimate="40 s"):
        _wait(stage, "loraengine", ENGINE, _ready)
        _rolled_out(stage)
    with step("loading the adapter into the running engine"):
        adapter = _wait(stage, "loraadapter", ADAPTER, _ready)
    _show(stage, adapter["status"]["current"]["engineName"])


def _train(stage: Stage) -> None:
    columns = (TextColumn("  training"), BarColumn(), TextColumn("{task.percentage:>3.0f} %  {task.fields[told]}"))
    with Progress(*columns, TimeElapsedColumn(), console=console) as progress:
        task = progress.add_task("training", total=100, told="waiting for the trainer's pod")

        def follow(job: Object) -> bool:
            status = job.get("status", {})
            told = status.get("trainerStatus", {})
            loss = next((metric["value"] for metric in told.get("metrics", []) if metric["name"] == "loss"), None)
            reason = _condition(job, "Ready").get("reason", "")
            text = f"loss {float(loss):.3f}" if loss else reason
            progress.update(task, completed=told.get("progressPercentage", 0), told=text)
            return _ready(job)

        _wait(stage, "loratrainingjob", JOB, follow)
        progress.update(task, completed=100)


def _show(stage: Stage, engine_name: str) -> None:
    base_url = f"http://{_cluster_ip(stage)}:{manifests.PORT}/v1"
    console.print(f"\n[bold]{PROMPT}[/]")
    for model in (TINY_MODEL, engine_name):
        console.print(f"  [cyan]{model}[/]\n    {ask(base_url, model, PROMPT)!r}", soft_wrap=True)
    console.print()
    console.print(stage.kubectl("get", "lora", "--namespace", NAMESPACE), end="", soft_wrap=True)
    console.print(
        f"""
Now try, after [bold]source {stage.state_dir / "env"}[/]:
  kubectl get lora -n {NAMESPACE}
  kubectl describe loraadapter {ADAPTER} -n {NAMESPACE}
  kubectl explain loraadapter.spec
  curl {base_url}/models
  kubectl delete loraadapter {ADAPTER} -n {NAMESPACE}""",
        soft_wrap=True,
    )


def ask(base_url: str, model: str, prompt: str) -> str:
    """Ask a model over the OpenAI API, greedily; return its answer."""
    body = {
        "model": model,
        "messages": [{"role": "user", "content": prompt}],
        "temperature": 0,
        "max_tokens": 24,
    }
    # A pod is Ready a moment before kube-proxy sends its Service's connections there.
    with httpx2.Client(transport=httpx2.HTTPTransport(retries=CONNECT_RETRIES), timeout=120) as client:
        answer = client.post(f"{base_url}/chat/completions", json=body)
    answer.raise_for_status()
    text: str = answer.json()["choices"][0]["message"]["content"]
    return text


def _cluster_ip(stage: Stage) -> str:
    return stage.kubectl(
        "get", "service", ENGINE, "--namespace", NAMESPACE, "--output=jsonpath={.spec.clusterIP}"
    ).strip()


def _token_secret() -> Object:
    metadata = {"name": "hf", "namespace": NAMESPACE}
    return {"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "stringData": {"token": TOKEN}}


def _apply(stage: Stage, objects: list[Object]) -> None:
    bundle = {"apiVersion": "v1", "kind": "List", "items": objects}
    stage.kubectl("apply", "--filename", "-", stdin=json.dumps(bundle))


def _rolled_out(stage: Stage) -> None:
    stage.kubectl("rollout", "status", f"deployment/{ENGINE}", "--namespace", NAMESPACE, "--timeout=10m")


def _wait(stage: Stage, kind: str, name: str, holds: Callable[[Object], bool]) -> Object:
    """Look at an object until it is as wanted; a final refusal, or ten minutes, end it with what the object says."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    said = "it is not there"
    while time.monotonic() < deadline:
        listing = stage.kubectl(
            "get", kind, "--namespace", NAMESPACE, f"--field-selector=metadata.name={name}", "--output=json"
        )
        for found in json.loads(listing)["items"]:
            if holds(found):
                return dict(found)
            ready = _condition(found, "Ready")
            said = f"{ready.get('reason', 'no status yet')}: {ready.get('message', '')}"
            if _condition(found, "Failed").get("status") == "True":
                raise RuntimeError(f"{kind} {name}: {said}")
        time.sleep(POLL_SECONDS)
    raise RuntimeError(f"{kind} {name} is not Ready after {PATIENCE_SECONDS:.0f} s: {said}")


def _ready(obj: Object) -> bool:
    return _condition(obj, "Ready").get("status") == "True"


def _condition(obj: Object, kind: str) -> Object:
    conditions = obj.get("status", {}).get("conditions", [])
    return next((condition for condition in conditions if condition["type"] == kind), {})
