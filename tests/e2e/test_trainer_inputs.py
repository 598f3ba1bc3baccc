"""What goes into a training, really trained: every format, DPO, 4 bits, converted starts, an adapter to go on from.

The oracles are trl and peft themselves, run by a script without us at the same seed, and a real vLLM.
"""

from __future__ import annotations

import copy
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aiohttp
import numpy as np
import pytest

from lora_operator.adapter import EngineLimits, inspect, open_directory, parse_header
from lora_operator.protocol.training import ExitCode, Reason
from support import grounds, real_engine
from support.engine_contract import Bench
from support.grounds import ROWS, Ground, Run
from support.real_engine import RealEngine
from support.real_trainer import jsonl
from tinymodel import cached

pytestmark = pytest.mark.timeout(1200)

PROMPTS = ["What is 7 plus one?", "Say 3", "What is 5?"]
TOKENS = 12


def specs(ground: Ground) -> dict[str, dict[str, Any]]:
    return {
        **{name: ground.spec(name) for name in ROWS},
        "assistant only": ground.spec("Messages", training={"assistantOnlyLoss": True}),
        "tools": ground.spec("Messages", dataset={"source": {"path": str(tool_rows(ground.folder))}}),
        "calls alone": ground.spec("Messages", baseModel={"path": str(calling(ground.folder))}, dataset=silent(ground)),
        "rslora": ground.spec(lora={"useRslora": True}),
        "pissa": ground.spec(lora={"initLoraWeights": "Pissa"}),
        "olora": ground.spec(lora={"initLoraWeights": "Olora", "useRslora": True}),
        "qlora": ground.spec(quantization={"bnb4bitQuantType": "NF4"}),
        "double": ground.spec(
            baseModel={"dtype": "BFloat16"},
            quantization={"bnb4bitUseDoubleQuant": True, "bnb4bitComputeDtype": "BFloat16"},
            training={"optim": "PagedAdamw32bit"},
        ),
        "fp4": ground.spec(quantization={"bnb4bitQuantType": "FP4"}),
        "gaussian": ground.spec(lora={"initLoraWeights": "Gaussian"}),
        "orthogonal": ground.spec(lora={"initLoraWeights": "Orthogonal"}),
        "patterns": ground.spec(
            lora={"rankPattern": {"q_proj": 4}, "alphaPattern": {"q_proj": 32}, "excludeModules": ["down_proj"]}
        ),
        "warm": ground.spec(lora={"r": 64, "initFrom": {"path": str(ground.adapter("PromptCompletion"))}}),
        "warm DPO": ground.spec("Preference", lora={"initFrom": {"path": str(ground.adapter("PromptCompletion"))}}),
    }


def called(tool: str, **arguments: object) -> dict[str, Any]:
    """Return a conversation in which a tool with these arguments is called."""
    properties = {name: {"type": "string"} for name in arguments}
    declared = {"name": tool, "parameters": {"type": "object", "properties": properties}}
    return {
        "messages": [
            {"role": "user", "content": f"Call {tool}."},
            {"role": "assistant", "content": "", "tool_calls": [{"function": {"name": tool, "arguments": arguments}}]},
            {"role": "tool", "content": "done"},
            {"role": "assistant", "content": "Forty-two, as always."},
        ],
        "tools": [{"type": "function", "function": declared}],
    }


CALLS = [called("weather", city="Bern"), called("add", one="1", other="2"), called("now")] * 5


def tool_rows(folder: Path) -> Path:
    """Write the calls, with their tools as JSON in a string, and return the file."""
    path = folder / "calls.jsonl"
    path.write_text(jsonl([row | {"tools": json.dumps(row["tools"])} for row in CALLS]))
    return path


def calling(folder: Path) -> Path:
    """Return a base whose chat template says a call where a message has no content, as those of most families do."""
    base = shutil.copytree(cached.ensure(), folder / "calling")
    said = "{% if m.content %}{{ m.content }}{% else %}{{ m.tool_calls | tojson }}{% endif %}<|end|>"
    template = "{% for m in messages %}<|{{ m.role }}|>" + said + "{% endfor %}"
    (base / "chat_template.jinja").write_text(template)
    return base


def silent(ground: Ground) -> dict[str, Any]:
    """Write the calls with a content of null, or without one, and return where they are."""
    path, calls = ground.folder / "silent.jsonl", [copy.deepcopy(row) for row in CALLS]
    for number, row in enumerate(calls):
        if number % 2:
            row["messages"][1]["content"] = None
        else:
            del row["messages"][1]["content"]
    path.write_text(jsonl(calls))
    return {"source": {"path": str(path)}}


@pytest.fixture(scope="module")
def ground(tmp_path_factory: pytest.TempPathFactory) -> Ground:
    return Ground(folder=tmp_path_factory.mktemp("ground"))


@pytest.fixture(scope="module")
def trained(ground: Ground) -> dict[str, Run]:
    return ground.train(specs(ground))


def bare(ground: Ground, name: str, data_format: str, **parts: Any) -> dict[str, Any]:
    return {
        "model": str(cached.ensure()),
        "rows": ROWS[data_format],
        "folder": str(ground.folder / f"bare-{name}"),
        "method": "DPO" if data_format == "Preference" else "SFT",
        "lora": {"r": 8, "lora_alpha": 16, **parts.get("lora", {})},
        "quantized": parts.get("quantized", False),
        "config": parts.get("config", {}),
        "prompts": PROMPTS,
    }


@pytest.fixture(scope="module")
def by_trl(ground: Ground) -> dict[str, Any]:
    """Return what a script without us says of the same trainings."""
    asked = {
        "PromptCompletion": bare(ground, "PromptCompletion", "PromptCompletion"),
        "Messages": bare(ground, "Messages", "Messages"),
        "Text": bare(ground, "Text", "Text"),
        "Preference": bare(ground, "Preference", "Preference"),
        "assistant only": bare(ground, "assistant only", "Messages", config={"assistant_only_loss": True}),
        "rslora": bare(ground, "rslora", "PromptCompletion", lora={"use_rslora": True}),
        "qlora": bare(ground, "qlora", "PromptCompletion", quantized=True),
        "pissa": bare(ground, "pissa", "PromptCompletion", lora={"init_lora_weights": "pissa"}),
        "olora": bare(ground, "olora", "PromptCompletion", lora={"init_lora_weights": "olora", "use_rslora": True}),
    }
    said = grounds.in_heavy_environment("bare_trl.py", list(asked.values()), folder=ground.folder)
    return dict(zip(asked, said, strict=True))


@pytest.fixture(scope="module")
def by_peft(ground: Ground, trained: dict[str, Run]) -> dict[str, Any]:
    adapters = {name: str(run.adapter) for name, run in trained.items() if run.exit_code == ExitCode.OK}
    asked = {"model": str(cached.ensure()), "adapters": adapters, "prompts": PROMPTS, "max_tokens": TOKENS}
    found: dict[str, Any] = grounds.in_heavy_environment("peft_answers.py", asked, folder=ground.folder)
    return found


@pytest.mark.parametrize("name", [*ROWS, "assistant only", "tools", "calls alone", "fp4", "gaussian", "orthogonal"])
def test_what_goes_in_is_trained_and_learnt_from(name: str, trained: dict[str, Run]) -> None:
    run = trained[name]
    assert (run.exit_code, run.result.reason) == (ExitCode.OK, Reason.TRAINED), run.log
    assert float(run.result.metrics["loss"]) < float(run.result.metrics["first_loss"]) - 0.1
    verdict = inspect(open_directory(run.adapter), None, EngineLimits(max_lora_rank=16))
    assert verdict.compatible != "False", verdict.message()


@pytest.fixture(scope="module")
def loaded(ground: Ground) -> dict[str, Any]:
    found: dict[str, Any] = grounds.in_heavy_environment("loaded_rows.py", CALLS, folder=ground.folder)
    return found


@pytest.mark.parametrize("way", ["jsonl", "parquet", "Hub's jsonl", "Hub's parquet"])
def test_messages_and_tools_keep_their_own_fields(way: str, loaded: dict[str, Any]) -> None:
    # Arrow has one shape for all rows: it would give each call the arguments of all others, as null, to be learnt.
    assert loaded[way] == CALLS


def test_a_data_set_that_the_hub_does_not_give_is_not_replaced_by_an_older_one(loaded: dict[str, Any]) -> None:
    assert loaded["gated"].startswith("dataset.source.hub.repo: acme/jsonl is gated; its owner must let the token in")
    assert loaded["not to be had"].startswith("dataset.source.hub")


@pytest.mark.parametrize("name", ["PromptCompletion", "Messages", "Text", "assistant only"])
def test_the_share_of_trained_tokens_is_that_of_trls_own_labels(
    name: str, trained: dict[str, Run], by_trl: dict[str, Any]
) -> None:
    assert float(trained[name].result.metrics["trained_token_share"]) == pytest.approx(by_trl[name]["share"], rel=1e-3)


@pytest.mark.parametrize(
    "name", ["PromptCompletion", "Messages", "Text", "Preference", "assistant only", "rslora", "qlora"]
)
def test_an_adapter_is_bit_for_bit_that_of_a_bare_script(
    name: str, ground: Ground, trained: dict[str, Run], by_trl: dict[str, Any]
) -> None:
    ours, theirs = tensors(trained[name].adapter), tensors(ground.folder / f"bare-{name}" / "adapter")
    assert ours.keys() == theirs.keys()
    assert [key for key in ours if ours[key] != theirs[key]] == []


@pytest.mark.parametrize("name", ["pissa", "olora"])
def test_a_converted_adapter_on_the_base_as_it_is_answers_like_the_model_that_was_trained(
    name: str, trained: dict[str, Run], by_trl: dict[str, Any], by_peft: dict[str, Any]
) -> None:
    config = json.loads((trained[name].adapter / "adapter_config.json").read_text())
    assert (config["r"], config["init_lora_weights"]) == (16, True)
    converted, as_trained = np.array(by_peft["logits"][name]), np.array(by_trl[name]["logits"])
    assert np.abs(converted - as_trained).max() < 1e-3 * np.abs(as_trained).max()


def test_patterns_and_exclusions_shape_the_adapter(trained: dict[str, Run]) -> None:
    run = trained["patterns"]
    assert run.exit_code == ExitCode.OK, run.log
    ranks = {name.split(".")[-3]: shape[0] for name, shape in shapes(run.adapter).items() if "lora_A" in name}
    assert ranks["q_proj"] == 4
    assert ranks["v_proj"] == 8
    assert "down_proj" not in ranks


def test_a_warm_start_goes_on_where_the_adapter_ended(trained: dict[str, Run]) -> None:
    cold, warm = trained["PromptCompletion"].result, trained["warm"].result
    assert float(warm.metrics["first_loss"]) < float(cold.metrics["first_loss"]) - 0.5
    # The shape is the adapter's, whatever the spec says beside it.
    assert json.loads((trained["warm"].adapter / "adapter_config.json").read_text())["r"] == 8
    # DPO measures itself by the adapter that it starts from: at the first step nothing is preferred yet.
    assert float(trained["warm DPO"].result.metrics["first_loss"]) == pytest.approx(np.log(2), abs=1e-4)
    assert {path.name for path in trained["warm DPO"].adapter.iterdir() if path.is_dir()} == set()


def test_a_paged_optimiser_is_said_to_be_missing_on_a_cpu(trained: dict[str, Run]) -> None:
    assert trained["double"].exit_code == ExitCode.OK, trained["double"].log
    assert "PagedAdamw32bit needs an accelerator; AdamwTorch is used on this CPU" in trained["double"].log


SERVED = ["Messages", "Preference", "rslora", "qlora", "pissa", "patterns", "warm"]


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealEngine]:
    with real_engine.running(tmp_path_factory.mktemp("vllm")) as engine:
        yield engine


async def test_vllm_answers_with_each_of_them_as_peft_does(
    engine: RealEngine, trained: dict[str, Run], by_peft: dict[str, Any], tmp_path: Path
) -> None:
    async with aiohttp.ClientSession() as session:
        bench = Bench(session=session, url=engine.url, folder=tmp_path)
        base = [await answer(bench, "base", prompt) for prompt in PROMPTS]
        for name in SERVED:
            model = name.replace(" ", "-")
            await bench.load(model, trained[name].adapter)
            said = [whole(await answer(bench, model, prompt)) for prompt in PROMPTS]
            assert said == [whole(text) for text in by_peft["answers"][name]], name
            assert said != base, name
            await bench.unload(model)


def whole(text: str) -> str:
    """Return a text without a last character that is not complete: vLLM waits for its other bytes, PEFT shows it."""
    return text.rstrip("\N{REPLACEMENT CHARACTER}")


async def answer(bench: Bench, model: str, prompt: str) -> str:
    body = {"model": model, "prompt": prompt, "max_tokens": TOKENS, "temperature": 0}
    status, text = await bench.call("POST", "/v1/completions", json=body)
    assert status == 200, text
    return str(json.loads(text)["choices"][0]["text"])


def tensors(folder: Path) -> dict[str, bytes]:
    content = (folder / "adapter_model.safetensors").read_bytes()
    header = parse_header(content, len(content))
    start = 8 + int.from_bytes(content[:8], "little")
    return {name: content[start + one.begin : start + one.end] for name, one in header.tensors.items()}


def shapes(folder: Path) -> dict[str, tuple[int, ...]]:
    content = (folder / "adapter_model.safetensors").read_bytes()
    return {name: tuple(one.shape) for name, one in parse_header(content, len(content)).tensors.items()}
