"""Adapters of other architectures than Llama: what fits their modules, and what vLLM takes on them."""

from collections.abc import Collection, Mapping

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


def judge(shapes: Mapping[str, tuple[int, int]], judged: Base, rank: int = 4, **others: object) -> Verdict:
    """Judge an adapter with a LoRA on each of *shapes*; its config has *others* as well."""
    tensors = {}
    for name, (out, into) in shapes.items():
        embedding = name == judged.embedding
        halves = {"A": (rank, out if embedding else into), "B": (into if embedding else out, rank)}
        for half, shape in halves.items():
            tail = f"lora_embedding_{half}" if embedding else f"lora_{half}.weight"
            tensors[f"{PREFIX}{name}.{tail}"] = tensor(np.ones(shape))
    config = {"target_modules": [*shapes], **others}
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
    experts = {Code.NOT_CHECKED} if FAMILIES[name].projections else set()
    assert {finding.code for finding in verdict.findings} == experts


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
    tensors["model.layers.0.mixer.some_norm.weight"] = Tensor("BF16", (64,), 0, 0)
    judged = adapter.base_from_headers([Header(10, tensors)], {"model_type": "mamba9"})
    assert judged is not None
    assert judged.layers == 2
    assert judge(shapes, judged, target_modules=["in_proj", "some_norm"]).reason == Code.MALFORMED_CONFIG
    assert judge(shapes, judged, target_modules=["in_proj", "mixer"]).reason == Code.MALFORMED_CONFIG
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


def planned(judged: Base, targets: object, **others: object) -> Verdict:
    """Judge a config alone, as before a training."""
    config = make_adapter(config={"target_modules": targets, **others}).files[adapter.CONFIG]
    return adapter.inspect(adapter.from_config(config), judged, CPU)


@pytest.mark.parametrize("name", SERVED)
def test_targets_that_are_no_linear_layers_are_refused_before_training_too(name: str) -> None:
    judged, family = base(name), FAMILIES[name]
    assert judged.others.isdisjoint({*judged.modules, *judged.unserved})
    linear = [part for part in family.layout if part.rpartition(".")[2] not in family.projections]
    block = next(iter(family.layout)).partition(".")[0]
    plain = family.routed_plain if family.routed else family.plain
    for target in (*plain, *family.around, block, "0", "layers"):
        findings = planned(judged, [*linear, target], exclude_modules=".*vision.*").errors
        assert [(finding.code, finding.field) for finding in findings] == [(Code.MALFORMED_CONFIG, "target_modules")]
    served = planned(judged, "all-linear", exclude_modules=".*(vision|gate_up_proj).*").servable
    assert served is not bool(family.projections)


EXPERTS = {"mixtral": ("w1", "w2", "w3"), "qwen3_moe": ("gate_proj", "down_proj", "up_proj")}
ROUTERS = {"mixtral": "model.layers.0.block_sparse_moe.gate", "qwen3_moe": "model.layers.0.mlp.gate"}


def experts_of(judged: Base, parts: Collection[str], numbers: Collection[str] = "012") -> dict[str, tuple[int, int]]:
    """Return the first layer's *parts* of the experts called by *numbers*."""
    return {
        name: shape
        for name, shape in judged.modules.items()
        if name.startswith("model.layers.0.") and name.rpartition(".")[2] in parts and name.split(".")[-2] in numbers
    }


@pytest.mark.parametrize("name", EXPERTS)
def test_loras_on_experts_are_served_where_peft_makes_the_same_of_them(name: str) -> None:
    judged, parts = base(name), EXPERTS[name]
    first, down, second = parts
    everything = experts_of(judged, parts)
    router = {ROUTERS[name]: judged.modules[ROUTERS[name]]}

    def codes(shapes: Mapping[str, tuple[int, int]], targets: object = (*parts, "gate"), **config: object) -> set[Code]:
        """Return what is wrong with LoRAs on *shapes*; always warned of."""
        verdict = judge(shapes, judged, **{"target_modules": targets, **config})
        assert Code.NOT_CHECKED in {finding.code for finding in verdict.findings}
        return {finding.code for finding in verdict.errors}

    assert len(everything) == 9
    halves = (experts_of(judged, [down]), experts_of(judged, [first, second]))
    for fine in (everything, router, everything | router, *halves):
        assert codes(fine) == set()
        assert codes(fine, "all-linear") == set()
    assert codes(everything, [f"experts.0.{part}" for part in parts] + [*everything]) == set()
    assert codes(experts_of(judged, parts, "01")) == {Code.UNPAIRED_TENSOR}
    assert codes(experts_of(judged, [first])) == {Code.UNPAIRED_TENSOR}
    assert codes(everything, [first, second]) == {Code.NOT_TARGETED}
    assert codes(everything, [first, down]) == {Code.NOT_TARGETED, Code.MALFORMED_CONFIG}
    assert codes(router, ["q_proj"]) == {Code.NOT_TARGETED}
    assert codes(everything, r".*\.experts\.\d+\..*") == {Code.NOT_TARGETED}
    for field in ({"use_rslora": True}, {"alpha_pattern": {first: 8}}, {"rank_pattern": {"c_attn": 8}}):
        assert codes(everything, **field) == {Code.UNSUPPORTED_VARIANT}
    assert codes(router, use_rslora=True) == set()
    assert codes(everything, lora_dropout=0.1) == {Code.MALFORMED_CONFIG}
    assert codes(everything, init_lora_weights=False) >= {Code.MISSING_TENSOR}


@pytest.mark.parametrize("name", EXPERTS)
def test_a_dropout_beside_experts_is_refused_for_loras_on_attention_too(name: str) -> None:
    judged = base(name)
    attention = {"model.layers.0.self_attn.q_proj": judged.modules["model.layers.0.self_attn.q_proj"]}
    for targets, code in ((["q_proj", *EXPERTS[name]], Code.MALFORMED_CONFIG), (["q_proj"], None)):
        verdict = judge(attention, judged, target_modules=targets, lora_dropout=0.05)
        assert {finding.code for finding in verdict.errors} == ({code} if code else set())


def test_what_peft_leaves_out_of_layers_with_experts_is_refused() -> None:
    dense = base("qwen3_moe", mlp_only_layers=[0])
    parts = {f"model.layers.0.mlp.{part}": (96, 64) for part in ("gate_proj", "up_proj")}
    verdict = judge(parts, dense)
    assert {finding.code for finding in verdict.errors} == {Code.NOT_TARGETED}
    qwen2 = base("qwen2_moe")
    for name in ("model.layers.0.mlp.gate", "model.layers.0.mlp.experts.0.up_proj"):
        assert Code.UNKNOWN_MODULE in {finding.code for finding in judge({name: (3, 64)}, qwen2).errors}
    shared = {name: shape for name, shape in qwen2.modules.items() if "shared_expert" in name}
    assert judge(shared, qwen2).servable
    assert planned(qwen2, ["q_proj", "gate"]).reason == Code.MALFORMED_CONFIG


def test_experts_of_an_architecture_that_is_not_known_are_refused() -> None:
    shapes = {f"model.layers.0.ff.experts.{number}.up": (128, 64) for number in range(2)}
    tensors = {f"{name}.weight": Tensor("BF16", shape, 0, 0) for name, shape in shapes.items()}
    judged = adapter.base_from_headers([Header(10, tensors)], {"model_type": "mamba9"})
    assert judged is not None
    assert judge(shapes, judged).reason == Code.UNSUPPORTED_VARIANT


def test_experts_are_refused_before_training_for_they_are_saved_in_one() -> None:
    for name, parts in EXPERTS.items():
        verdict = planned(base(name), ["q_proj", *parts])
        assert [(finding.code, finding.field) for finding in verdict.errors] == [
            (Code.UNSUPPORTED_VARIANT, "target_modules")
        ]
        assert planned(base(name), ["q_proj", "gate"]).reason == Code.UNSUPPORTED_VARIANT
        assert planned(base(name), ["q_proj", "o_proj"], lora_dropout=0.1).servable


def test_what_sees_gets_no_lora_before_training_and_after() -> None:
    judged = base("gemma3", vision_config={"num_hidden_layers": 2, "vision_use_head": False})
    seeing = "model.vision_tower.encoder.layers.1.self_attn.q_proj"
    assert seeing in judged.unserved
    assert len(judged.unserved) == 2 * 6 + 2
    assert planned(judged, ["q_proj"]).reason == Code.UNKNOWN_MODULE
    assert planned(judged, ["q_proj"], exclude_modules=".*vision_tower.*").servable
    assert judge({seeing: (32, 32)}, judged).reason == Code.UNKNOWN_MODULE
    decoder = {name: shape for name, shape in judged.modules.items() if name.endswith("q_proj")}
    assert judge(decoder, judged, target_modules=["q_proj"]).servable
    random = judge(decoder, judged, target_modules=["q_proj"], init_lora_weights=False)
    assert {finding.code for finding in random.errors} == {Code.MISSING_TENSOR}
    for target in ("encoder", "layer_norm1", "multi_modal_projector", "post_layernorm"):
        assert judge(decoder, judged, target_modules=["q_proj", target]).reason == Code.MALFORMED_CONFIG


def test_glm_4_gets_no_lora_on_what_vllm_looks_for_in_two() -> None:
    judged = base("glm4", head_dim=16)
    assert judge({"model.layers.0.mlp.gate_up_proj": (192, 64)}, judged).reason == Code.UNKNOWN_MODULE
    assert judge({"model.layers.0.mlp.down_proj": (64, 96)}, judged, target_modules=["down_proj"]).servable
    assert planned(judged, ["gate_up_proj", "q_proj"]).reason == Code.UNKNOWN_MODULE
    assert planned(judged, ["down_proj", "q_proj"]).servable


def test_the_names_of_gemma_3_before_transformers_4_52_are_taken_as_well() -> None:
    judged = base("gemma3")
    now = [name for name in judged.modules if name.endswith(("q_proj", "v_proj"))]
    before = {name.replace("model.language_model.", "language_model.model.", 1): judged.modules[name] for name in now}
    assert judge(before, judged, target_modules=["q_proj", "v_proj"]).servable
    assert judge(before, judged, target_modules=["q_proj"]).reason == Code.NOT_TARGETED
    assert judge(before, judged, target_modules=r".*language_model\.model\..*").reason == Code.NOT_TARGETED
    assert judge(before, judged, target_modules=["q_proj", "v_proj"], alpha_pattern={"q_proj": 9}).servable
    keyed = judge(before, judged, target_modules=["q_proj", "v_proj"], alpha_pattern={next(iter(before)): 9})
    assert {finding.code for finding in keyed.errors} == {Code.PATTERN_NOT_SUPPORTED}
    twice = before | {now[0]: judged.modules[now[0]]}
    assert judge(twice, judged, target_modules=["q_proj", "v_proj"]).reason == Code.UNKNOWN_MODULE
