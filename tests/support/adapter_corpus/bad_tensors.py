"""Adapters whose tensors are of another base, have other names than PEFT's, or are no halves of a LoRA."""

from dataclasses import replace

from lora_operator.adapter import Code
from support.adapter_corpus.case import Q0, Case, bad, ones
from support.adapters import TINY_LLAMA, AdapterFiles, TensorData, make_adapter, other_base


def _pair(module: str, *, rank: int = 8, out: int = 128, into: int = 128) -> dict[str, TensorData]:
    return {f"{module}.lora_A.weight": ones(rank, into), f"{module}.lora_B.weight": ones(out, rank)}


def _with(tensors: dict[str, TensorData | None] | dict[str, TensorData], *targets: str) -> AdapterFiles:
    extra = {"target_modules": ["q_proj", "v_proj", *targets]} if targets else {}
    return make_adapter(tensors=tensors, config=extra)


_IDLE = "what was trained there does nothing, in PEFT as in vLLM: it is not the adapter that was trained"

_BASES = (
    bad("half the base's width", Code.SHAPE_MISMATCH, lambda: make_adapter(base=other_base())),
    bad("twice the base's width", Code.SHAPE_MISMATCH, lambda: make_adapter(base=replace(TINY_LLAMA, hidden=256))),
    bad("fewer key and value heads", Code.SHAPE_MISMATCH, lambda: make_adapter(base=replace(TINY_LLAMA, kv_heads=1))),
    bad("another inner width", Code.SHAPE_MISMATCH,
        lambda: make_adapter(base=replace(TINY_LLAMA, inner=256), targets=["gate_proj", "down_proj"])),
    bad("another vocabulary", Code.SHAPE_MISMATCH,
        lambda: make_adapter(base=replace(TINY_LLAMA, vocabulary=4096), targets=["embed_tokens"])),
    bad("more layers", Code.LAYER_OUT_OF_RANGE, lambda: make_adapter(base=replace(TINY_LLAMA, layers=3)),
        why=_IDLE),
    bad("a layer called 00", Code.UNKNOWN_MODULE, lambda: _with(_pair(Q0.replace(".0.", ".00."))), why=_IDLE),
    bad("a module unknown to the base", Code.UNKNOWN_MODULE,
        lambda: _with(_pair(Q0.replace("q_proj", "foo_proj")), "foo_proj")),
    bad("a module of a vision tower", Code.UNKNOWN_MODULE,
        lambda: _with(_pair("base_model.model.vision_tower.layers.0.self_attn.q_proj")), why=_IDLE),
    bad("a norm", Code.UNKNOWN_MODULE, lambda: _with(_pair("base_model.model.model.norm"), "norm")),
    bad("lm_head on a CPU", Code.LM_HEAD_NOT_SUPPORTED, lambda: make_adapter(targets=["q_proj", "lm_head"]),
        poisonous=True),
)  # fmt: skip

_NAMES = (
    bad("names without PEFT's prefix", Code.UNKNOWN_TENSOR,
        lambda: _with(_pair("model.layers.0.self_attn.k_proj", out=64), "k_proj")),
    bad("names with PEFT's prefix twice", Code.UNKNOWN_TENSOR,
        lambda: _with(_pair(f"base_model.model.{Q0.replace('q_proj', 'k_proj')}", out=64), "k_proj")),
    bad("names with the adapter's name", Code.UNKNOWN_TENSOR,
        lambda: make_adapter(tensors={f"{Q0}.lora_A.default.weight": ones(8, 128)})),
    *(
        bad(f"names under {prefix}", Code.UNKNOWN_MODULE,
            lambda prefix=prefix: _with(_pair(f"base_model.model.{prefix}.layers.0.self_attn.q_proj")),  # type: ignore[misc]
            why=_IDLE)
        for prefix in ("_orig_mod", "_orig_mod.model", "module.model", "language_model.model", "model.base_model.model",
                       "transformer")
    ),
    bad("names without the model", Code.UNKNOWN_MODULE,
        lambda: _with(_pair("base_model.model.layers.0.self_attn.q_proj")), why=_IDLE),
    bad("whole embeddings of another size saved along", Code.UNKNOWN_TENSOR,
        lambda: make_adapter(targets=["q_proj", "embed_tokens"], tensors={
            "base_model.model.model.embed_tokens.base_layer.weight": ones(2049, 128)})),
    bad("a whole head saved along", Code.UNKNOWN_TENSOR,
        lambda: make_adapter(tensors={"base_model.model.lm_head.base_layer.weight": ones(2048, 128)}), why=_IDLE),
    bad("a LoRA under a LoRA", Code.UNKNOWN_MODULE, lambda: _with(_pair(f"{Q0}.base_layer"), "base_layer"), why=_IDLE),
    bad("a whole layer saved along", Code.UNKNOWN_TENSOR,
        lambda: make_adapter(tensors={Q0.replace("q_proj", "o_proj.weight"): ones(128, 128)})),
    bad("a bias saved along", Code.UNKNOWN_TENSOR, lambda: make_adapter(tensors={f"{Q0}.lora_B.bias": ones(128)})),
    bad("a name with ..", Code.UNKNOWN_TENSOR, lambda: make_adapter(tensors={"../../etc/passwd": ones(1)})),
    bad("an empty name", Code.UNKNOWN_TENSOR, lambda: make_adapter(tensors={"": ones(1)})),
    bad("a name that is no ASCII", Code.UNKNOWN_TENSOR,
        lambda: make_adapter(tensors={Q0.replace("q", "\u0455") + ".lora_A.weight": ones(8, 128)})),
    bad("a DoRA vector", Code.DORA_NOT_SUPPORTED,
        lambda: make_adapter(tensors={f"{Q0}.lora_magnitude_vector": ones(128)})),
    bad("trained tokens in the file", Code.UNKNOWN_TENSOR,
        lambda: make_adapter(tensors={"base_model.model.model.embed_tokens.trainable_tokens_delta": ones(1, 128)})),
    bad("embeddings as a linear layer", Code.UNKNOWN_TENSOR,
        lambda: _with(_pair("base_model.model.model.embed_tokens"), "embed_tokens")),
    bad("a linear layer as embeddings", Code.UNKNOWN_TENSOR, lambda: make_adapter(tensors={
        f"{Q0.replace('q_proj', 'o_proj')}.lora_embedding_A": ones(8, 128),
        f"{Q0.replace('q_proj', 'o_proj')}.lora_embedding_B": ones(128, 8),
    }, config={"target_modules": ["q_proj", "v_proj", "o_proj"]})),
)  # fmt: skip

_HALVES = (
    bad("A and B of different rank", Code.RANK_MISMATCH,
        lambda: make_adapter(tensors={f"{Q0}.lora_A.weight": ones(4, 128)})),
    bad("A without B", Code.UNPAIRED_TENSOR, lambda: make_adapter(tensors={f"{Q0}.lora_B.weight": None})),
    bad("B without A", Code.UNPAIRED_TENSOR, lambda: make_adapter(tensors={f"{Q0}.lora_A.weight": None})),
    bad("A turned round", Code.SHAPE_MISMATCH, lambda: make_adapter(tensors={f"{Q0}.lora_A.weight": ones(128, 8)})),
    bad("A and B exchanged", Code.SHAPE_MISMATCH, lambda: make_adapter(
        targets=["gate_proj"], tensors={
            "base_model.model.model.layers.0.mlp.gate_proj.lora_A.weight": ones(8, 384),
            "base_model.model.model.layers.0.mlp.gate_proj.lora_B.weight": ones(128, 8),
        })),
    bad("a vector", Code.SHAPE_MISMATCH, lambda: make_adapter(tensors={f"{Q0}.lora_A.weight": ones(8)})),
    bad("a scalar", Code.SHAPE_MISMATCH, lambda: make_adapter(tensors={f"{Q0}.lora_A.weight": ones()})),
    bad("a cube", Code.SHAPE_MISMATCH, lambda: make_adapter(tensors={f"{Q0}.lora_A.weight": ones(8, 128, 1)})),
    bad("an empty matrix", Code.SHAPE_MISMATCH, lambda: make_adapter(tensors={f"{Q0}.lora_A.weight": ones(0, 128)})),
    bad("complex numbers", Code.UNSUPPORTED_DTYPE, lambda: make_adapter(tensors={
        f"{Q0}.lora_A.weight": ("C64", (8, 128), b"\0" * 8 * 8 * 128)}), why="what is imaginary is lost"),
)  # fmt: skip

BAD_TENSORS: tuple[Case, ...] = (*_BASES, *_NAMES, *_HALVES)
