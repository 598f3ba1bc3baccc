"""`lora-train --check`: the examples pass as they stand, and what is wrong is told by its field, before any weights."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

import hubserver
from imagebuild import engine, wrappers
from lora_operator.protocol.training import ExitCode, Reason
from support import adapters, real_trainer
from support.grounds import Ground, Run, in_heavy_environment
from tinymodel import cached

pytestmark = pytest.mark.timeout(1200)

EXAMPLES = engine.REPOSITORY / "examples/trainer"
SPECS = sorted(EXAMPLES.glob("*.yaml"))


@pytest.fixture(scope="module")
def examples(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """Return how the check of each example ended, from a copy: what it leaves beside them would show."""
    folder = tmp_path_factory.mktemp("examples")
    copy = shutil.copytree(EXAMPLES, folder / "trainer")
    asked = [[str(copy / path.name), "--check"] for path in SPECS]
    ended = in_heavy_environment("many_runs.py", asked, folder=folder)
    assert sorted(path.name for path in copy.rglob("*")) == sorted(path.name for path in EXAMPLES.rglob("*"))
    return dict(zip((path.stem for path in SPECS), ended, strict=True))


@pytest.mark.parametrize("name", [path.stem for path in SPECS])
def test_an_example_passes_as_it_stands(name: str, examples: dict[str, dict[str, Any]]) -> None:
    ended = examples[name]
    assert ended["exit"] == ExitCode.OK, ended["out"] + ended["err"]
    assert "refused" not in ended["out"]
    for told in ("ok           training: ", "ok           lora: ", "ok           baseModel: ", "resources: about "):
        assert told in ended["out"]
    assert "of them learnt" in ended["out"]
    assert '"reason":"Checked"' in ended["out"].splitlines()[-1]


def test_a_device_without_paged_optimisers_is_told_of(examples: dict[str, dict[str, Any]]) -> None:
    assert "warning      training.optim: PagedAdamw32bit needs an accelerator" in examples["qlora"]["out"]


WRONG: Mapping[str, tuple[str, dict[str, Any], ExitCode, str]] = {
    "an argument that was renamed": (
        "Text",
        {"training": {"extraArgs": {"group_by_length": "true"}}},
        ExitCode.CONFIG_INVALID,
        'training.extraArgs.group_by_length: is gone from trl and transformers; use train_sampling_strategy: "group',
    ),
    "a tracker that is not installed": (
        "Text",
        {"training": {"extraArgs": {"report_to": "wandb"}}},
        ExitCode.CONFIG_INVALID,
        "training.extraArgs.report_to: wandb is not installed in the trainer's environment, which has no tracker; ",
    ),
    "an argument of another type": (
        "Text",
        {"training": {"extraArgs": {"neftune_noise_alpha": "banana"}}},
        ExitCode.CONFIG_INVALID,
        "training.extraArgs.neftune_noise_alpha: Input should be a valid number, not 'banana'",
    ),
    "a token that the tokenizer lacks": (
        "Text",
        {"training": {"extraArgs": {"eos_token": "zzz"}}},
        ExitCode.CONFIG_INVALID,
        "training.extraArgs.eos_token: the tokenizer of acme/tiny has no token 'zzz'",
    ),
    "an argument of the other method": (
        "Preference",
        {"training": {"extraArgs": {"packing_strategy": "wrapped"}}},
        ExitCode.CONFIG_INVALID,
        "training.extraArgs.packing_strategy: trl's DPOConfig has no such argument",
    ),
    "a module that the base lacks": (
        "Text",
        {"lora": {"targetModules": ["q_prj"]}},
        ExitCode.CONFIG_INVALID,
        "lora.targetModules: acme/tiny has no module 'q_prj'; did you mean q_proj?",
    ),
    "twice the rank is too much": (
        "Text",
        {"lora": {"initLoraWeights": "Pissa"}, "engine": {"maxLoraRank": 8}},
        ExitCode.NOT_SERVABLE,
        "RankTooHigh",
    ),
    "nothing is left after the cut": (
        "PromptCompletion",
        {"training": {"maxLength": 2}},
        ExitCode.DATASET_INVALID,
        "training.completionOnlyLoss: nothing would be learnt, for every row is cut at training.maxLength 2",
    ),
    "marks that no row has": (
        "PromptCompletion",
        {"training": {"assistantOnlyLoss": True}},
        ExitCode.CONFIG_INVALID,
        "training.assistantOnlyLoss: needs conversations, and dataset.format PromptCompletion has none",
    ),
    "a base that is nowhere": (
        "Text",
        {"baseModel": {"path": "/nowhere"}},
        ExitCode.MODEL_UNAVAILABLE,
        "baseModel.path: /nowhere is no folder with a config.json",
    ),
    "a file that is not there": (
        "Text",
        {"dataset": {"source": {"path": "gone.jsonl"}}},
        ExitCode.CONFIG_INVALID,
        "dataset.source.path: there is no file 'gone.jsonl'",
    ),
    "a start that holds no adapter": (
        "Text",
        {"lora": {"initFrom": {"path": "."}}},
        ExitCode.CONFIG_INVALID,
        "lora.initFrom.path: there is no adapter_config.json in it",
    ),
    "a start that is of another base": (
        "Text",
        {"lora": {"initFrom": {"path": "other"}}},
        ExitCode.NOT_SERVABLE,
        "lora.initFrom: ",
    ),
    "a row beyond the positions that are learnt": (
        "PromptCompletion",
        {"baseModel": {"path": "learnt"}},
        ExitCode.CONFIG_INVALID,
        "training.maxLength: 128 is more than the 16 positions that acme/tiny has learnt, and a row has ",
    ),
    "a base with a broken file": (
        "Text",
        {"baseModel": {"path": "broken"}},
        ExitCode.MODEL_UNAVAILABLE,
        "broken/model.safetensors can't be read",
    ),
}


OPT = json.loads((EXAMPLES / "bases/opt/config.json").read_text())
WITHIN = "rows within the positions that are learnt"


@pytest.fixture(scope="module")
def checked(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Run]:
    """Return how the check of each wrong spec ended, and of one whose rows are short enough for its base."""
    ground = Ground(folder=tmp_path_factory.mktemp("wrong"))
    adapters.make_adapter(base=dataclasses.replace(adapters.TINY_LLAMA, hidden=32)).write(ground.folder / "other")
    made = {name: shutil.copytree(cached.ensure(), ground.folder / name) for name in ("broken", "learnt", "roomy")}
    (made["broken"] / "model.safetensors").write_bytes(b"cut off")
    for name, positions in (("learnt", 16), ("roomy", 64)):
        (made[name] / "model.safetensors").unlink()
        (made[name] / "config.json").write_text(json.dumps({**OPT, "max_position_embeddings": positions}))
    asked = {name: ground.spec(data_format, **parts) for name, (data_format, parts, _, _) in WRONG.items()}
    return ground.check({**asked, WITHIN: ground.spec("Text", baseModel={"path": "roomy"})})


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_is_told_by_its_field(name: str, checked: dict[str, Run]) -> None:
    _, _, exit_code, words = WRONG[name]
    assert checked[name].exit_code == exit_code, checked[name].out + checked[name].log
    assert words in checked[name].result.message


def test_one_fault_does_not_hide_the_next(tmp_path: Path) -> None:
    ground = Ground(folder=tmp_path)
    spec = ground.spec(
        "PromptCompletion", lora={"targetModules": ["q_prj"]}, training={"maxLength": 2, "extraArgs": {"packng": 1}}
    )
    run = ground.check({"all": spec})["all"]
    refused = [line for line in run.out.splitlines() if line.startswith("refused ")]
    assert [line.split()[1].rstrip(":") for line in refused] == [
        "training.extraArgs.packng",
        "lora.targetModules",
        "training.completionOnlyLoss",
    ]
    assert run.result.reason is Reason.CONFIG_INVALID


def test_rows_within_the_positions_learnt_pass_and_room_is_looked_at(checked: dict[str, Run]) -> None:
    within = checked[WITHIN]
    assert within.exit_code == ExitCode.OK, within.out + within.log
    assert "warning      training.maxLength: 128 is more than the 64 positions that acme/tiny has learnt" in within.out
    assert "ok           --output: about " in within.out


def check(spec: dict[str, Any], folder: Path, *more: str, **environ: str) -> tuple[int, str]:
    """Run the command itself and return its exit code and what it prints."""
    wrappers.write()
    (folder / "spec.yaml").write_text(yaml.safe_dump(spec))
    command = [engine.REPOSITORY / ".local/engine/bin/lora-train", folder / "spec.yaml", *more]
    environment = {**os.environ, "HF_HOME": str(folder / "cache"), "HF_HUB_DISABLE_XET": "1", "HF_TOKEN": "", **environ}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=600)
    return done.returncode, done.stdout


def test_with_a_hub_the_right_to_publish_is_asked_and_nothing_is_made(tmp_path: Path) -> None:
    with hubserver.running() as hub:
        files = {path.name: path.read_bytes() for path in cached.ensure().iterdir()}
        hub.add_model("acme/tiny", files)
        hub.add_dataset("acme/chat", {"train.jsonl": real_trainer.jsonl(real_trainer.CHATS).encode()})
        spec = {
            "baseModel": {"name": "acme/tiny"},
            "dataset": {"source": {"hub": {"repo": "acme/chat"}}, "format": "Messages"},
            "output": {"hub": {"repo": "acme/not-yet"}},
        }
        code, out = check(spec, tmp_path, "--check", HF_ENDPOINT=hub.url, LORA_OUTPUT_TOKEN="hf_write")
        assert code == ExitCode.OK, out
        assert "ok           output.hub: acme/not-yet is not there yet, and the token may create it" in out
        code, out = check(spec, tmp_path, "--check", HF_ENDPOINT=hub.url, LORA_OUTPUT_TOKEN="hf_read")
        assert code == ExitCode.HUB_UNAUTHORIZED, out
        assert "output.hub.repo: the token in output.hub.tokenSecretRef may" in out
        asked = [(request.method, request.path) for request in hub.requests]
        assert not [path for method, path in asked if method == "POST" and "repos/create" in path]
        assert not [path for _, path in asked if path.endswith(".safetensors")]


def test_a_hub_that_is_not_there_is_no_fault(tmp_path: Path) -> None:
    spec = {
        "baseModel": {"name": "acme/tiny"},
        "dataset": {"source": {"hub": {"repo": "acme/chat"}}, "format": "Messages"},
        "output": {"hub": {"repo": "acme/adapter"}},
    }
    nowhere = {"HF_ENDPOINT": "http://127.0.0.1:9", "LORA_TRAIN_HUB_PATIENCE_SECONDS": "1"}
    code, out = check(spec, tmp_path, "--check", **nowhere)
    assert code == ExitCode.OK, out
    assert [line.split(":")[0].split()[-1] for line in out.splitlines() if line.startswith("not checked")] == [
        "baseModel",
        "dataset",
        "output.hub",
    ]


def test_a_dry_run_prints_what_trl_gets_and_print_defaults_what_the_spec_has(tmp_path: Path) -> None:
    spec = Ground(folder=tmp_path).spec("Text", training={"extraArgs": {"neftune_noise_alpha": 5}})
    code, out = check(spec, tmp_path, "--dry-run")
    shown = yaml.safe_load(out)
    assert (code, shown["SFTConfig"]["max_steps"], shown["SFTConfig"]["neftune_noise_alpha"]) == (0, 6, 5)
    assert shown["SFTConfig"]["model_init_kwargs"] == {"dtype": "float32"}
    assert (shown["LoraConfig"]["r"], shown["BitsAndBytesConfig"]) == (8, None)
    spec["training"]["extraArgs"] = {"learning_rate": 1}
    code, out = check(spec, tmp_path, "--dry-run")
    assert (code, "say it in training.learningRate" in out) == (ExitCode.CONFIG_INVALID, True)
    code, out = check({}, tmp_path, "--print-defaults")
    assert (code, yaml.safe_load(out)["training"]["learningRate"]) == (0, "2e-4")
