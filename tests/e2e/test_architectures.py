"""The base's shapes on every architecture: what config.json tells against a model that transformers has made."""

import json
import subprocess
from pathlib import Path

import pytest

from imagebuild import wrappers
from lora_operator import adapter
from lora_operator.adapter.families import FAMILIES
from support import tiny_architectures
from support.tiny_architectures import ARCHITECTURES


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("architectures")
    command = [wrappers.write() / "python", "-m", tiny_architectures.__name__, folder]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
    return folder


def test_each_family_has_a_model() -> None:
    assert {name.split()[0] for name in ARCHITECTURES} == set(FAMILIES)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_config_and_headers_tell_the_same_shapes(name: str, models: Path) -> None:
    config = json.loads((models / name / "config.json").read_bytes())
    weights = models / name / "model.safetensors"
    with weights.open("rb") as file:
        header = adapter.read_header(file, weights.stat().st_size)
    derived = adapter.base_from_config(config)
    assert derived is not None
    assert adapter.base_from_headers([header], config) == derived
    assert adapter.base_from_directory(models / name) == derived
    # And back, as an agent reports it to the operator.
    assert adapter.base_from_shapes(derived.modules, config) == derived
    # Nothing in a layer that a LoRA could sit on is left out, but for what sees.
    matrices = {
        name.removesuffix(".weight").replace("language_model.model.", "model.language_model.")
        for name, tensor in header.tensors.items()
        if len(tensor.shape) == 2 and not name.startswith(("vision_tower.", "multi_modal_projector."))
    }
    known = derived.modules.keys() | {"embed_out", "model.decoder.embed_positions", "transformer.wpe"}
    assert matrices <= known


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_what_carries_no_lora_is_known_by_name(name: str, models: Path) -> None:
    base = adapter.base_from_config(json.loads((models / name / "config.json").read_bytes()))
    assert base is not None
    others = set(json.loads((models / name / "others.json").read_bytes()))
    assert base.others <= others
    # Of those that see, of experts, and of what vLLM puts no LoRA on at all, only the most are.
    whole = base.engine_serves_lora and name != "gemma3" and not any(".experts" in other for other in others)
    assert not whole or base.others == others


def test_vllms_classes_take_loras_where_the_families_say(models: Path) -> None:
    configs = {name: json.loads((models / name / "config.json").read_bytes()) for name in ARCHITECTURES}
    # The class of one that sees needs torchvision, which the heavy environment does without: it was read instead.
    configs = {name: config for name, config in configs.items() if "vision_config" not in config}
    asked = {name: config["architectures"][0] for name, config in configs.items()}
    command = [wrappers.write() / "python", "-m", "support.vllm_classes"]
    done = subprocess.run(
        command, input=json.dumps([*asked.values()]), capture_output=True, text=True, timeout=600, check=False
    )
    assert done.returncode == 0, done.stderr[-4000:]
    found = json.loads(done.stdout.splitlines()[-1])
    for name, config in configs.items():
        base, told = adapter.base_from_config(config), found[asked[name]]
        assert base is not None
        ends = {end for end in (base.embedding, base.head) if end.rpartition(".")[2] in told["embeddings"]}
        assert (name, base.engine_serves_lora) == (name, told["lora"])
        assert (name, base.takes) == (name, ends if told["lora"] else frozenset())
