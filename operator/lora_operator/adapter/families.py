"""The architectures whose shapes a config.json tells: names and sizes as transformers' model classes have them.

Each family is data: which modules a layer has, what transformers fills in where config.json says nothing, and on which
of embedding and head vLLM takes a LoRA. Read from transformers 5.19 and vLLM 0.32; an end-to-end test builds a model of
each and compares.
"""

from collections.abc import Mapping

from .family import NORMS, PLAIN, STANDARD, Family
from .towers import siglip

_ATTENTION = {
    "self_attn.q_proj": ("query", "hidden"),
    "self_attn.k_proj": ("key", "hidden"),
    "self_attn.v_proj": ("key", "hidden"),
    "self_attn.o_proj": ("hidden", "query"),
}
_GATED = {
    "mlp.gate_proj": ("inner", "hidden"),
    "mlp.up_proj": ("inner", "hidden"),
    "mlp.down_proj": ("hidden", "inner"),
}
_SHARED = {
    "mlp.shared_expert.gate_proj": ("shared", "hidden"),
    "mlp.shared_expert.up_proj": ("shared", "hidden"),
    "mlp.shared_expert.down_proj": ("hidden", "shared"),
    "mlp.shared_expert_gate": ("one", "hidden"),
}
_ROUTED = {
    "mlp.gate": ("experts", "hidden"),
    "mlp.experts.{}.gate_proj": ("expert", "hidden"),
    "mlp.experts.{}.up_proj": ("expert", "hidden"),
    "mlp.experts.{}.down_proj": ("hidden", "expert"),
}
_MIXTRAL = {
    "block_sparse_moe.gate": ("experts", "hidden"),
    "block_sparse_moe.experts.{}.w1": ("inner", "hidden"),
    "block_sparse_moe.experts.{}.w2": ("hidden", "inner"),
    "block_sparse_moe.experts.{}.w3": ("inner", "hidden"),
}
_FUSED = {
    "self_attn.qkv_proj": ("qkv", "hidden"),
    "self_attn.o_proj": ("hidden", "query"),
    "mlp.gate_up_proj": ("twice_inner", "hidden"),
    "mlp.down_proj": ("hidden", "inner"),
}
_BLOOMLIKE = {"mlp.dense_h_to_4h": ("inner", "hidden"), "mlp.dense_4h_to_h": ("hidden", "inner")}

_UNGATED = {"mlp.up_proj": ("inner", "hidden"), "mlp.down_proj": ("hidden", "inner")}

# What else a layer has.
_NORMS_OF_HEADS = ("self_attn.q_norm", "self_attn.k_norm")
_NORMS_OF_MLP = ("pre_feedforward_layernorm", "post_feedforward_layernorm")
_NORMS_AFTER = ("post_attention_layernorm", "post_feedforward_layernorm")


def _routed_by_step(config: Mapping[str, object], layer: int) -> bool:
    """Tell whether Qwen's config makes *layer* one of experts."""
    alone, step = config.get("mlp_only_layers") or [], config.get("decoder_sparse_step", 1)
    listed = isinstance(alone, list) and layer in alone
    return not listed and isinstance(step, int) and step > 0 and (layer + 1) % step == 0


def _sizes(hidden: int, inner: int, layers: int, heads: int, vocabulary: int, **others: int) -> dict[str, int]:
    return {
        "hidden": hidden, "inner": inner, "layers": layers, "heads": heads, "vocabulary": vocabulary, **others,
    }  # fmt: skip


_BOTH = frozenset({"model.embed_tokens", "lm_head"})
_EMBEDDING = frozenset({"model.embed_tokens"})
_LLAMA = _ATTENTION | _GATED
_MOE_FIELDS = STANDARD | {"expert": "moe_intermediate_size"}
_GPT2_FIELDS = {
    "hidden": "n_embd", "inner": "n_inner", "layers": "n_layer", "heads": "n_head", "vocabulary": "vocab_size",
}  # fmt: skip
_OPT_FIELDS = STANDARD | {"inner": "ffn_dim", "embedding": "word_embed_proj_dim"}
_FALCON_FIELDS = STANDARD | {"inner": "ffn_hidden_size", "key_heads": "num_kv_heads"}

FAMILIES: Mapping[str, Family] = {
    "llama": Family(layout=_LLAMA, takes=_BOTH, defaults=_sizes(4096, 11008, 32, 32, 32000)),
    "mistral": Family(layout=_LLAMA, defaults=_sizes(4096, 14336, 32, 32, 32000, key_heads=8)),
    "mixtral": Family(
        layout=_ATTENTION, routed=_MIXTRAL, is_routed=lambda _config, _layer: True, takes=_BOTH,
        plain=NORMS,
        defaults=_sizes(4096, 14336, 32, 32, 32000, key_heads=8, experts=8),
    ),
    "qwen2": Family(layout=_LLAMA, defaults=_sizes(4096, 22016, 32, 32, 151936, key_heads=32)),
    "qwen3": Family(
        layout=_LLAMA, takes=_BOTH, plain=(*PLAIN, *_NORMS_OF_HEADS),
        defaults=_sizes(4096, 22016, 32, 32, 151936, key_heads=32, head_dim=128),
    ),
    "qwen2_moe": Family(
        # Its experts and their router are no layers since transformers 5, and PEFT finds nothing to put their LoRAs on.
        layout=_LLAMA, routed=_SHARED, is_routed=_routed_by_step,
        fields=_MOE_FIELDS | {"shared": "shared_expert_intermediate_size"},
        routed_plain=(
            "mlp", "mlp.gate", "mlp.experts", "mlp.experts.act_fn", "mlp.shared_expert", "mlp.shared_expert.act_fn",
        ),
        defaults=_sizes(2048, 5632, 24, 16, 151936, key_heads=16, expert=1408, shared=5632, experts=60),
    ),
    "qwen3_moe": Family(
        layout=_LLAMA, routed=_ROUTED, is_routed=_routed_by_step, fields=_MOE_FIELDS, takes=_BOTH,
        plain=(*PLAIN, *_NORMS_OF_HEADS),
        defaults=_sizes(2048, 6144, 24, 32, 151936, key_heads=4, expert=768, experts=128),
    ),
    "gemma": Family(layout=_LLAMA, defaults=_sizes(3072, 24576, 28, 16, 256000, key_heads=16, head_dim=256)),
    "gemma2": Family(
        layout=_LLAMA, plain=(*PLAIN, *_NORMS_OF_MLP),
        defaults=_sizes(2304, 9216, 26, 8, 256000, key_heads=4, head_dim=256),
    ),
    "gemma3_text": Family(
        layout=_LLAMA, plain=(*PLAIN, *_NORMS_OF_MLP, *_NORMS_OF_HEADS),
        defaults=_sizes(2304, 9216, 26, 8, 262208, key_heads=4, head_dim=256),
    ),
    "gemma3": Family(
        layout=_LLAMA, prefix="model.language_model.layers", embedding="model.language_model.embed_tokens",
        nested="text_config", formerly=("language_model.model.", "model.language_model."), tower=siglip,
        plain=(*PLAIN, *_NORMS_OF_MLP, *_NORMS_OF_HEADS),
        defaults=_sizes(2304, 9216, 26, 8, 262208, key_heads=4, head_dim=256),
    ),
    "granite": Family(layout=_LLAMA, takes=_BOTH, defaults=_sizes(4096, 11008, 32, 32, 32000)),
    "smollm3": Family(layout=_LLAMA, takes=_EMBEDDING, defaults=_sizes(2048, 11008, 36, 16, 128256, key_heads=4)),
    "olmo": Family(layout=_LLAMA, takes=_EMBEDDING, defaults=_sizes(4096, 11008, 32, 32, 50304)),
    **dict.fromkeys(("olmo2", "olmo3"), Family(
        layout=_LLAMA, takes=_EMBEDDING, defaults=_sizes(4096, 11008, 32, 32, 50304),
        plain=("mlp.act_fn", *_NORMS_AFTER, *_NORMS_OF_HEADS),
    )),
    **dict.fromkeys(("cohere", "cohere2"), Family(
        layout=_LLAMA, takes=_EMBEDDING, plain=("mlp.act_fn", "input_layernorm"),
        defaults=_sizes(8192, 22528, 40, 64, 256000),
    )),
    "exaone4": Family(
        layout=_LLAMA, takes=_BOTH, defaults=_sizes(4096, 16384, 32, 32, 102400, key_heads=32),
        plain=("mlp.act_fn", *_NORMS_AFTER, *_NORMS_OF_HEADS),
    ),
    "seed_oss": Family(
        layout=_LLAMA, takes=_EMBEDDING, defaults=_sizes(4096, 27648, 64, 80, 155136, key_heads=8, head_dim=128),
    ),
    "helium": Family(
        layout=_LLAMA | {"self_attn.o_proj": ("hidden", "hidden")}, takes=_EMBEDDING,
        defaults=_sizes(2560, 7040, 24, 20, 48000, key_heads=20, head_dim=128),
    ),
    "ernie4_5": Family(
        layout=_LLAMA, takes=_BOTH, defaults=_sizes(1024, 3072, 18, 16, 103424, key_heads=2, head_dim=128),
    ),
    "ministral3": Family(layout=_LLAMA, defaults=_sizes(4096, 14336, 34, 32, 131072, key_heads=8, head_dim=128)),
    "nemotron": Family(
        layout=_ATTENTION | _UNGATED, takes=_BOTH, defaults=_sizes(6144, 24576, 32, 48, 256000),
    ),
    "arcee": Family(layout=_ATTENTION | _UNGATED, takes=_EMBEDDING, defaults=_sizes(2560, 18432, 32, 32, 32000)),
    "apertus": Family(
        layout=_ATTENTION | _UNGATED, takes=_BOTH, defaults=_sizes(4096, 14336, 32, 32, 131072),
        plain=("mlp.act_fn", "attention_layernorm", "feedforward_layernorm", *_NORMS_OF_HEADS),
    ),
    "glm4": Family(
        # vLLM's class looks for gate and up, which the checkpoint has in one.
        layout=_ATTENTION | {"mlp.down_proj": ("hidden", "inner")}, unserved=("mlp.gate_up_proj",),
        plain=("mlp.activation_fn", *NORMS, "post_self_attn_layernorm", "post_mlp_layernorm"),
        defaults=_sizes(4096, 13696, 40, 32, 151552, key_heads=2, head_dim=128),
    ),
    "glm": Family(
        layout=_ATTENTION | {"mlp.gate_up_proj": _FUSED["mlp.gate_up_proj"], "mlp.down_proj": _FUSED["mlp.down_proj"]},
        takes=_EMBEDDING, plain=("mlp.activation_fn", *NORMS),
        defaults=_sizes(4096, 13696, 40, 32, 151552, key_heads=2, head_dim=128),
    ),
    "phi": Family(
        layout={
            **{name: shape for name, shape in _ATTENTION.items() if not name.endswith("o_proj")},
            "self_attn.dense": ("hidden", "query"), "mlp.fc1": ("inner", "hidden"), "mlp.fc2": ("hidden", "inner"),
        },
        plain=("mlp.activation_fn", "input_layernorm", "resid_dropout"),
        around=("rotary_emb", "embed_dropout", "final_layernorm"),
        takes=_EMBEDDING, defaults=_sizes(2048, 8192, 24, 32, 51200),
    ),
    "phi3": Family(
        layout=_FUSED, takes=_BOTH, defaults=_sizes(3072, 8192, 32, 32, 32064),
        plain=("mlp.activation_fn", *NORMS, "resid_attn_dropout", "resid_mlp_dropout"),
    ),
    "starcoder2": Family(
        layout={**_ATTENTION, "mlp.c_fc": ("inner", "hidden"), "mlp.c_proj": ("hidden", "inner")},
        plain=("mlp.act", *NORMS),
        takes=_EMBEDDING, defaults=_sizes(3072, 12288, 30, 24, 49152, key_heads=2),
    ),
    "opt": Family(
        layout={
            **{name: shape for name, shape in _ATTENTION.items() if not name.endswith("o_proj")},
            "self_attn.out_proj": ("hidden", "query"), "fc1": ("inner", "hidden"), "fc2": ("hidden", "inner"),
        },
        plain=("activation_fn", "self_attn_layer_norm", "final_layer_norm"), around=("final_layer_norm",),
        prefix="model.decoder.layers", embedding="model.decoder.embed_tokens", fields=_OPT_FIELDS,
        defaults=_sizes(768, 3072, 12, 12, 50272),
    ),
    "gpt2": Family(
        layout={
            "attn.c_attn": ("qkv", "hidden"), "attn.c_proj": ("hidden", "query"),
            "mlp.c_fc": ("inner", "hidden"), "mlp.c_proj": ("hidden", "inner"),
        },
        plain=(), around=(),
        prefix="transformer.h", embedding="transformer.wte", fields=_GPT2_FIELDS, transposed=True, serves_lora=False,
        defaults={"hidden": 768, "layers": 12, "heads": 12, "vocabulary": 50257},
    ),
    "gpt_neox": Family(
        layout={
            "attention.query_key_value": ("qkv", "hidden"), "attention.dense": ("hidden", "query"), **_BLOOMLIKE,
        },
        plain=("mlp.act", *NORMS, "post_attention_dropout", "post_mlp_dropout"),
        around=("emb_dropout", "final_layer_norm", "rotary_emb"),
        prefix="gpt_neox.layers", embedding="gpt_neox.embed_in", head="embed_out",
        defaults=_sizes(6144, 24576, 44, 64, 50432),
    ),
    "falcon": Family(
        layout={
            "self_attention.query_key_value": ("qkv", "hidden"), "self_attention.dense": ("hidden", "query"),
            **_BLOOMLIKE,
        },
        plain=(), around=(),
        prefix="transformer.h", embedding="transformer.word_embeddings", fields=_FALCON_FIELDS, serves_lora=False,
        defaults={"hidden": 4544, "layers": 32, "heads": 71, "vocabulary": 65024},
    ),
}  # fmt: skip

# What PEFT 0.21 fills in where target_modules is null (TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING). Mixtral is
# there as well, but PEFT's converter for experts makes an empty list of null before.
DEFAULT_TARGETS: Mapping[str, tuple[str, ...]] = {
    **dict.fromkeys(
        ("llama", "mistral", "gemma", "gemma2", "gemma3_text", "qwen2", "qwen3", "opt"), ("q_proj", "v_proj")
    ),
    "phi": ("q_proj", "v_proj", "fc1", "fc2"),
    "gpt_neox": ("query_key_value",),
}


def family_of(config: Mapping[str, object]) -> Family | None:
    """Return the family that config.json names; None for one that is not known."""
    model_type = config.get("model_type")
    return FAMILIES.get(model_type) if isinstance(model_type, str) else None
