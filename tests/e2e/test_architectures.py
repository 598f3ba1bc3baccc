"""The base's shapes on every architecture: what config.json tells against a model that transformers has made."""

import json
import subprocess
from pathlib import Path

import pytest

from imagebuild import wrappers
from lora_operator import adapter
from lora_operator.adapter import EngineLimits
from lora_operator.adapter.families import FAMILIES
from support import expert_adapters, tiny_architectures
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
    # Nothing in a layer that a LoRA could sit on is left out, but for what sees, and experts that PEFT leaves out.
    matrices = {
        name.removesuffix(".weight").replace("language_model.model.", "model.language_model.")
        for name, tensor in header.tensors.items()
        if len(tensor.shape) == 2 and not name.startswith(("vision_tower.", "multi_modal_projector."))
    }
    if config["model_type"] == "qwen2_moe":
        matrices = {name for name in matrices if ".experts." not in name and not name.endswith(".gate")}
    known = (
        derived.modules.keys() | derived.unserved | {"embed_out", "model.decoder.embed_positions", "transformer.wpe"}
    )
    assert matrices <= known


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_what_carries_no_lora_is_known_by_name(name: str, models: Path) -> None:
    base = adapter.base_from_config(json.loads((models / name / "config.json").read_bytes()))
    assert base is not None
    others = set(json.loads((models / name / "others.json").read_bytes()))
    family = FAMILIES[name.split(maxsplit=1)[0]]
    assert base.unserved.isdisjoint(others)
    # PEFT takes these routers, which are no layers, for their weights.
    routers = {other for other in others if family.projections and other.endswith(".gate")}
    assert base.others <= others - routers
    # Of what vLLM puts no LoRA on at all, only the most are known.
    assert not base.engine_serves_lora or base.others == others - routers


def test_adapters_on_experts_are_judged_as_peft_takes_them(models: Path, tmp_path: Path) -> None:
    command = [wrappers.write() / "python", "-m", expert_adapters.__name__, models, tmp_path]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
    found = []
    for number, (model, *_) in enumerate(expert_adapters.CASES):
        base = adapter.base_from_directory(models / model)
        verdict = adapter.inspect(adapter.open_directory(tmp_path / str(number)), base, EngineLimits(device="cuda"))
        found.append((number, verdict.servable))
    assert found == [*enumerate(json.loads((tmp_path / "right.json").read_text()))]


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
