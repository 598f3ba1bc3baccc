"""What every engine of type VLLM answers, call by call: the same checks for the fake one and for the real vLLM.

    @pytest.mark.parametrize("check", engine_contract.CHECKS, ids=engine_contract.name_of)
    async def test_the_fake_engine_keeps_the_contract(check, ...): await check(Bench(...))

Where vLLM's sentence matters to somebody, the whole of it is compared; else status and form.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import numpy as np
import pytest

from lora_agent.engine import Health, NoAnswer, Refusal
from lora_agent.vllm import VLLM, busy_adapters, told
from support.adapters import AdapterFiles, make_adapter, other_base, tensor

MAX_LORA_RANK = 16
SERVED = "base"
_LIMIT = aiohttp.ClientTimeout(total=240)


@dataclass(frozen=True, kw_only=True)
class Bench:
    """An engine that runs with `--served-model-name base --max-lora-rank 16`, and a folder that it can read."""

    session: aiohttp.ClientSession
    url: str
    folder: Path

    def adapter(self, files: AdapterFiles | None = None) -> Path:
        """Write an adapter where the engine sees it."""
        path = (files or make_adapter()).write(self.folder / uuid.uuid4().hex)
        for file in path.iterdir():
            file.chmod(0o644)
        return path

    async def call(self, method: str, path: str, **request: Any) -> tuple[int, str]:
        """Ask the engine; returns the status and the text."""
        async with self.session.request(method, f"{self.url}{path}", timeout=_LIMIT, **request) as answer:
            return answer.status, await answer.text()

    async def load(self, name: str, path: Path | str, **more: Any) -> tuple[int, str]:
        """Ask it to load."""
        return await self.call(
            "POST", "/v1/load_lora_adapter", json={"lora_name": name, "lora_path": str(path), **more}
        )

    async def unload(self, name: str) -> tuple[int, str]:
        """Ask it to unload."""
        return await self.call("POST", "/v1/unload_lora_adapter", json={"lora_name": name})

    async def complete(self, model: str, prompt: str = "def main") -> tuple[int, str]:
        """Ask for a few tokens, greedily."""
        body = {"model": model, "prompt": prompt, "max_tokens": 8, "temperature": 0}
        return await self.call("POST", "/v1/completions", json=body)

    async def models(self) -> dict[str, dict[str, Any]]:
        """Return what /v1/models lists, by id."""
        status, text = await self.call("GET", "/v1/models")
        assert status == 200
        return {card["id"]: card for card in json.loads(text)["data"]}


Check = Callable[[Bench], Awaitable[None]]


def unique() -> str:
    """Return a name that no other check uses: an engine remembers more of a name than it should."""
    return f"team-a.support.{uuid.uuid4().hex[:12]}"


async def a_healthy_engine_says_so_and_names_its_version(bench: Bench) -> None:
    assert await bench.call("GET", "/health") == (200, "")
    status, text = await bench.call("GET", "/version")
    assert status == 200
    assert isinstance(json.loads(text)["version"], str)


async def the_list_of_models_tells_base_and_adapters_apart(bench: Bench) -> None:
    name, path = unique(), bench.adapter()
    await bench.load(name, path)
    models = await bench.models()
    assert models[SERVED]["parent"] is None
    assert {key: models[name][key] for key in ("root", "parent", "object")} == {
        "root": str(path),
        "parent": SERVED,
        "object": "model",
    }
    await bench.unload(name)
    assert name not in await bench.models()


async def load_and_unload_answer_in_plain_text(bench: Bench) -> None:
    name = unique()
    status, text = await bench.load(name, bench.adapter())
    assert (status, text) == (200, f"Success: LoRA adapter '{name}' added successfully.")
    status, text = await bench.unload(name)
    assert (status, text) == (200, f"Success: LoRA adapter '{name}' removed successfully.")


async def a_name_that_is_loaded_is_not_loaded_again(bench: Bench) -> None:
    name, path = unique(), bench.adapter()
    await bench.load(name, path)
    for again in (path, bench.adapter(make_adapter(seed=1))):
        status, text = await bench.load(name, again)
        assert status == 400
        assert told(text).startswith(f"The lora adapter '{name}' has already been loaded.")
        assert json.loads(text)["error"]["type"] == "InvalidUserInput"
    assert (await bench.models())[name]["root"] == str(path)
    await bench.unload(name)


async def the_base_s_name_is_refused(bench: Bench) -> None:
    status, text = await bench.load(SERVED, bench.adapter())
    assert (status, told(text)) == (400, f"The lora adapter '{SERVED}' conflicts with a served base model.")


async def a_path_without_an_adapter_is_not_found(bench: Bench) -> None:
    empty = bench.folder / uuid.uuid4().hex
    empty.mkdir()
    for path in (bench.folder / "nothing", empty):
        name = unique()
        status, text = await bench.load(name, path)
        assert status == 404
        assert told(text).startswith(f"Loading lora {name} failed: No adapter found for ")
        assert json.loads(text)["error"]["type"] == "NotFoundError"
        assert json.loads(text)["error"]["code"] == 404


async def requests_that_are_not_well_formed_are_refused_with_400(bench: Bench) -> None:
    status, text = await bench.load(unique(), "")
    assert (status, told(text)) == (400, "Both 'lora_name' and 'lora_path' must be provided.")
    for body in ({"lora_name": "x"}, {"lora_name": 1, "lora_path": "/x"}):
        status, text = await bench.call("POST", "/v1/load_lora_adapter", json=body)
        assert status == 400
        assert "validation error" in told(text)
    status, text = await bench.call("POST", "/v1/load_lora_adapter", data="{}", headers={"Content-Type": "text/plain"})
    assert status == 400
    assert "Unsupported Media Type: Only 'application/json' is allowed" in told(text)


def _refusal(words: str, make: Callable[[], AdapterFiles], name: str) -> Check:
    """Return the check that a bad adapter is a 500 whose message says what is wrong."""

    async def check(bench: Bench) -> None:
        adapter_name = unique()
        status, text = await bench.load(adapter_name, bench.adapter(make()))
        assert status == 500
        assert words in told(text)
        assert told(text).startswith("Call to add_lora method failed: ")
        assert json.loads(text)["error"]["type"] == "InternalServerError"
        assert adapter_name not in await bench.models()

    check.__name__ = name
    return check


async def what_is_wrong_but_well_formed_is_taken_without_a_word(bench: Bench) -> None:
    """The reason for the agent's own verification: vLLM loads an adapter of half the base's width."""
    name = unique()
    assert (await bench.load(name, bench.adapter(make_adapter(base=other_base()))))[0] == 200
    await bench.unload(name)


async def embeddings_are_taken_with_the_whole_of_them_beside(bench: Bench) -> None:
    """As PEFT saves them; the copy of the base's is left out, whatever is in it."""
    name = unique()
    copy = {"base_model.model.model.embed_tokens.base_layer.weight": tensor(np.ones((2048, 128)))}
    files = make_adapter(targets=("q_proj", "embed_tokens"), tensors=copy)
    assert (await bench.load(name, bench.adapter(files)))[0] == 200
    await bench.unload(name)


async def an_unknown_name_cannot_be_unloaded_or_asked(bench: Bench) -> None:
    name = unique()
    status, text = await bench.unload(name)
    assert (status, told(text)) == (404, f"The lora adapter '{name}' cannot be found.")
    status, text = await bench.complete(name)
    assert status == 404
    assert told(text).startswith(f"The model `{name}` does not exist.")


async def an_adapter_answers_otherwise_than_the_base_and_always_the_same(bench: Bench) -> None:
    name, strong = (
        unique(),
        make_adapter(config={"lora_alpha": 512}, targets=("q_proj", "v_proj", "o_proj", "down_proj")),
    )
    await bench.load(name, bench.adapter(strong))
    answers = [_text(await bench.complete(name)) for _ in range(2)]
    assert answers[0] == answers[1]
    assert answers[0] != _text(await bench.complete(SERVED))
    await bench.unload(name)
    assert (await bench.complete(name))[0] == 404


async def a_route_that_is_not_there_is_fastapi_s_own_not_found(bench: Bench) -> None:
    status, text = await bench.call("POST", "/v1/no_such_route", json={})
    assert (status, json.loads(text)) == (404, {"detail": "Not Found"})


async def the_metrics_tell_when_no_request_runs_on_an_adapter(bench: Bench) -> None:
    name = unique()
    await bench.load(name, bench.adapter())
    await bench.complete(name)
    await bench.unload(name)
    _, metrics = await bench.call("GET", "/metrics")
    assert busy_adapters(metrics) == frozenset()


async def the_agent_s_own_client_understands_it_all(bench: Bench) -> None:
    engine, name, path = VLLM(bench.session, bench.url), unique(), bench.adapter()
    await engine.load(name, path)
    view = await engine.look()
    assert view.health is Health.UP
    assert view.served == (SERVED,)
    assert view.adapters[name] == str(path)
    await engine.probe(name)
    assert await engine.busy() == frozenset()
    await engine.unload(name)
    await engine.unload(name)
    assert name not in (await engine.look()).adapters
    with pytest.raises(Refusal, match="greater than max_lora_rank") as refused:
        await engine.load(name, bench.adapter(make_adapter(rank=32)))
    assert refused.value.status == 500
    with pytest.raises(NoAnswer) as unanswered:
        await VLLM(bench.session, "http://127.0.0.1:9").load(name, path)
    assert unanswered.value.refused


def _text(answer: tuple[int, str]) -> str:
    status, text = answer
    assert status == 200, text
    return str(json.loads(text)["choices"][0]["text"])


CHECKS: tuple[Check, ...] = (
    a_healthy_engine_says_so_and_names_its_version,
    the_list_of_models_tells_base_and_adapters_apart,
    load_and_unload_answer_in_plain_text,
    a_name_that_is_loaded_is_not_loaded_again,
    the_base_s_name_is_refused,
    a_path_without_an_adapter_is_not_found,
    requests_that_are_not_well_formed_are_refused_with_400,
    _refusal("is greater than max_lora_rank 16", lambda: make_adapter(rank=32), "a_rank_above_the_maximum_is_a_500"),
    _refusal("DoRA", lambda: make_adapter(config={"use_dora": True}), "dora_is_a_500"),
    _refusal("bias is not supported", lambda: make_adapter(config={"bias": "all"}), "bias_is_a_500"),
    _refusal(
        "modules_to_save", lambda: make_adapter(config={"modules_to_save": ["lm_head"]}), "modules_to_save_is_a_500"
    ),
    _refusal("not fully covered", lambda: make_adapter().truncated(100), "a_truncated_file_is_a_500"),
    _refusal(
        "doesn't contain tensors",
        lambda: make_adapter().with_file("adapter_model.safetensors", None),
        "no_weights_is_a_500",
    ),
    _refusal(
        "must match the size",
        lambda: make_adapter(rank=32, config={"r": 8}),
        "a_rank_that_is_not_the_config_s_is_a_500",
    ),
    what_is_wrong_but_well_formed_is_taken_without_a_word,
    embeddings_are_taken_with_the_whole_of_them_beside,
    an_unknown_name_cannot_be_unloaded_or_asked,
    an_adapter_answers_otherwise_than_the_base_and_always_the_same,
    a_route_that_is_not_there_is_fastapi_s_own_not_found,
    the_metrics_tell_when_no_request_runs_on_an_adapter,
    the_agent_s_own_client_understands_it_all,
)


def name_of(check: Check) -> str:
    """Return a check's name, for a test's id."""
    return getattr(check, "__name__", repr(check))
