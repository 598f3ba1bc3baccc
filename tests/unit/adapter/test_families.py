"""Adapters of other architectures than Llama: what fits their modules, and what vLLM takes on them."""

from collections.abc import Mapping

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lora_operator import adapter
from lora_operator.adapter import Base, Code, EngineLimits, Header, Tensor, Verdict
from lora_operator.adapter.families import FAMILIES
from support.adapters import PREFIX, make_adapter, tensor

CPU = EngineLimits(max_lora_rank=16, device="cpu", version="0.32.0")
SMALL = {
    "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "vocab_size": 100, "ffn_dim": 96, "n_embd": 64, "n_layer": 2, "n_head": 4,
    "num_experts": 3, "num_local_experts": 3, "moe_intermediate_size": 48, "shared_expert_intermediate_size": 80,
}  # fmt: skip


def base(model_type: str, **others: object) -> Base:
    found = adapter.base_from_config({"model_type": model_type, "text_config": SMALL, **SMALL, **others})
    assert found is not None
    return found


def judge(shapes: Mapping[str, tuple[int, int]], judged: Base, rank: int = 4) -> Verdict:
    """Judge an adapter with a LoRA on each of *shapes*."""
    tensors = {}
    for name, (out, into) in shapes.items():
        embedding = name == judged.embedding
        halves = {"A": (rank, out if embedding else into), "B": (into if embedding else out, rank)}
        for half, shape in halves.items():
            tail = f"lora_embedding_{half}" if embedding else f"lora_{half}.weight"
            tensors[f"{PREFIX}{name}.{tail}"] = tensor(np.ones(shape))
    config = {"target_modules": [*shapes]}
    return adapter.inspect(make_adapter(targets=[], rank=rank, config=config, tensors=tensors).parts(), judged, CPU)


SERVED = [name for name, family in FAMILIES.items() if family.serves_lora]


@pytest.mark.parametrize("name", SERVED)
def test_a_lora_on_every_layer_fits_its_family(name: str) -> None:
    judged = base(name)
    layers = {
        module: shape for module, shape in judged.modules.items() if module not in (judged.embedding, judged.head)
    }
    verdict = judge(layers, judged)
    assert verdict.servable, verdict.findings
    experts = any(".experts." in module for module in layers)
    assert {finding.code for finding in verdict.findings} == ({Code.NOT_CHECKED} if experts else set())


@pytest.mark.parametrize("name", FAMILIES)
@given(st.data())
def test_a_shape_that_is_off_by_anything_is_found(name: str, data: st.DataObject) -> None:
    judged = base(name)
    module = data.draw(st.sampled_from(sorted(judged.modules.keys() - {judged.head})))
    out, into = judged.modules[module]
    wrong = data.draw(st.sampled_from([(out + 1, into), (out, into + 1), (2 * out, into), (out, max(1, into // 2))]))
    verdict = judge({module: wrong}, judged)
    assert (Code.SHAPE_MISMATCH in {finding.code for finding in verdict.errors}) is (wrong != (out, into))


@pytest.mark.parametrize("name", FAMILIES)
def test_embeddings_are_served_where_vllms_class_takes_them(name: str) -> None:
    judged = base(name)
    verdict = judge({judged.embedding: judged.modules[judged.embedding]}, judged)
    taken = judged.takes is not None and judged.embedding in judged.takes
    assert verdict.servable is taken, verdict.findings
    if not taken:
        assert Code.UNKNOWN_MODULE in {finding.code for finding in verdict.errors}


@pytest.mark.parametrize("name", ["gpt2", "falcon"])
def test_what_vllm_takes_no_lora_on_is_served_merged(name: str) -> None:
    judged = base(name)
    module = next(iter(judged.modules))
    verdict = judge({module: judged.modules[module]}, judged)
    assert verdict.reason == Code.ARCHITECTURE_NOT_SUPPORTED
    assert verdict.servable_once == "merged"


@pytest.mark.parametrize(
    ("name", "module"),
    [
        ("phi3", "model.layers.0.self_attn.q_proj"),
        ("llama", "model.layers.0.self_attn.qkv_proj"),
        ("gpt_neox", "gpt_neox.layers.0.self_attn.q_proj"),
        ("qwen3_moe", "model.layers.0.mlp.experts.3.gate_proj"),
        ("qwen3_moe", "model.layers.0.mlp.gate_proj"),
        ("opt", "model.layers.0.self_attn.q_proj"),
    ],
)
def test_a_module_of_another_layout_is_unknown(name: str, module: str) -> None:
    assert judge({module: (64, 64)}, base(name)).reason == Code.UNKNOWN_MODULE


def test_qwens_layers_without_experts_are_told_apart() -> None:
    judged = base("qwen3_moe", mlp_only_layers=[1], decoder_sparse_step=1)
    assert "model.layers.0.mlp.experts.2.down_proj" in judged.modules
    assert judged.modules["model.layers.1.mlp.down_proj"] == (64, 96)


def test_an_architecture_that_is_not_known_is_judged_by_its_headers() -> None:
    shapes = {"model.layers.0.mixer.in_proj": (128, 64), "model.layers.1.mixer.in_proj": (128, 64)}
    tensors = {f"{name}.weight": Tensor("BF16", shape, 0, 0) for name, shape in shapes.items()}
    judged = adapter.base_from_headers([Header(10, tensors)], {"model_type": "mamba9"})
    assert judged is not None
    assert judged.layers == 2
    good = judge(shapes, judged)
    assert good.servable
    assert [(finding.code, finding.field) for finding in good.findings] == [(Code.NOT_CHECKED, "model_type")]
    assert judge({"model.layers.0.mixer.in_proj": (64, 64)}, judged).reason == Code.SHAPE_MISMATCH
    assert judge({"model.layers.0.mixer.other": (64, 64), **shapes}, judged).reason == Code.UNKNOWN_MODULE


def test_a_checkpoint_with_names_of_its_own_tells_nothing() -> None:
    shape = {"language_model.layers.0.mixer.in_proj.weight": Tensor("BF16", (128, 64), 0, 0)}
    judged = adapter.base_from_headers([Header(10, shape)], {"model_type": "llava9"})
    verdict = judge({"model.language_model.layers.0.mixer.in_proj": (128, 64)}, judged or base("llama"))
    assert (verdict.compatible, verdict.reason) == ("Unknown", Code.BASE_NOT_READABLE)


def test_what_an_agent_reports_is_taken_as_it_is() -> None:
    config = {"model_type": "gpt2", **SMALL}
    known = base("gpt2")
    assert adapter.base_from_shapes(known.modules, config) == known
    pruned = {name: (90, 64) if name in (known.embedding, known.head) else s for name, s in known.modules.items()}
    reported = adapter.base_from_shapes(pruned, config)
    assert reported is not None
    assert reported.modules[known.embedding] == (90, 64)


@pytest.mark.parametrize("name", ["weight", "qweight", "weight_packed"])
def test_packed_weights_tell_no_shapes_and_eight_bit_floats_do(name: str) -> None:
    config = {"model_type": "llama", **SMALL}
    known = base("llama")
    kept = {f"{module}.weight": Tensor("F8_E4M3", shape, 0, 0) for module, shape in known.modules.items()}
    assert adapter.base_from_headers([Header(10, kept)], config) == known
    packed = kept | {f"model.layers.0.mlp.up_proj.{name}": Tensor("I32", (12, 64), 0, 0)}
    assert adapter.base_from_headers([Header(10, packed)], config) is None


@pytest.mark.parametrize("name", SERVED)
def test_targets_that_are_no_linear_layers_are_refused_before_training_too(name: str) -> None:
    judged, family = base(name), FAMILIES[name]
    assert judged.others.isdisjoint(judged.modules)
    block = next(iter(family.layout)).partition(".")[0]
    plain = [target for target in family.plain if not (family.routed and target.startswith("mlp."))]
    for target in (*plain, *family.around, block, "0", "layers"):
        config = make_adapter(config={"target_modules": [*family.layout, target]}).files[adapter.CONFIG]
        findings = adapter.inspect(adapter.from_config(config), judged, CPU).errors
        assert [(finding.code, finding.field) for finding in findings] == [(Code.MALFORMED_CONFIG, "target_modules")]
    config = make_adapter(config={"target_modules": "all-linear"}).files[adapter.CONFIG]
    assert adapter.inspect(adapter.from_config(config), judged, CPU).servable
