"""The architectures whose shapes a config.json tells: names and sizes as transformers' model classes have them.

Each family is data: which modules a layer has, what transformers fills in where config.json says nothing, and on which
of embedding and head vLLM takes a LoRA. Read from transformers 5.19 and vLLM 0.32; an end-to-end test builds a model of
each and compares.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from .towers import Tower, siglip

_SIZE_LIMIT = 2**31
_LAYERS_LIMIT = 1000
_EXPERTS_LIMIT = 4096

Dims = Mapping[str, int]
Layout = Mapping[str, tuple[str, str]]

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

# What else a layer has, and what stands around the layers.
_NORMS = ("input_layernorm", "post_attention_layernorm")
_NORMS_OF_HEADS = ("self_attn.q_norm", "self_attn.k_norm")
_NORMS_OF_MLP = ("pre_feedforward_layernorm", "post_feedforward_layernorm")
_PLAIN = ("mlp.act_fn", *_NORMS)
_AROUND = ("norm", "rotary_emb")

_STANDARD = {
    "hidden": "hidden_size",
    "inner": "intermediate_size",
    "layers": "num_hidden_layers",
    "heads": "num_attention_heads",
    "key_heads": "num_key_value_heads",
    "head_dim": "head_dim",
    "vocabulary": "vocab_size",
}


def _dense(_config: Mapping[str, object], _layer: int) -> bool:
    return False


def _blind(_config: Mapping[str, object]) -> Tower:
    return Tower()


def _routed_by_step(config: Mapping[str, object], layer: int) -> bool:
    """Tell whether Qwen's config makes *layer* one of experts."""
    alone, step = config.get("mlp_only_layers") or [], config.get("decoder_sparse_step", 1)
    listed = isinstance(alone, list) and layer in alone
    return not listed and isinstance(step, int) and step > 0 and (layer + 1) % step == 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """One model type. *takes*: on which of embedding and head vLLM's class takes a LoRA."""

    layout: Layout
    prefix: str = "model.layers"
    embedding: str = "model.embed_tokens"
    head: str = "lm_head"
    takes: frozenset[str] = frozenset()
    fields: Mapping[str, str] = field(default_factory=lambda: _STANDARD)
    defaults: Mapping[str, int] = field(default_factory=dict)
    routed: Layout = field(default_factory=dict)
    is_routed: Callable[[Mapping[str, object], int], bool] = _dense
    experts: tuple[str, ...] = ("num_experts", "num_local_experts")
    # The modules of a layer of experts that carry no LoRA, as transformers 5 keeps them.
    routed_plain: tuple[str, ...] = ("mlp", "mlp.experts", "mlp.experts.act_fn")
    # Modules that are no layers of weights, on which PEFT puts no LoRA: those of a layer, and those around the layers.
    plain: tuple[str, ...] = _PLAIN
    around: tuple[str, ...] = _AROUND
    # GPT-2's Conv1D keeps its weights as (in, out).
    transposed: bool = False
    # Of a model that also sees: where its config has the sizes, and how its modules' names begin in its checkpoint, as
    # before transformers 4.52, and how now.
    nested: str | None = None
    formerly: tuple[str, str] = ("", "")
    tower: Callable[[Mapping[str, object]], Tower] = _blind
    # Whether vLLM's own class for it takes LoRAs at all.
    serves_lora: bool = True

    def shapes(self, config: Mapping[str, object]) -> tuple[int, dict[str, tuple[int, int]]] | None:
        """Return the number of layers and each module's (out, in); None where the config does not tell."""
        inner = config.get(self.nested, {}) if self.nested else config
        dims = self._dims(inner) if isinstance(inner, Mapping) else None
        if dims is None:
            return None
        modules = dict(self._modules(config, dims))
        rows = dims["embedding"]
        modules |= {self.embedding: (dims["vocabulary"], rows), self.head: (dims["vocabulary"], rows)}
        return dims["layers"], modules

    def others(self, config: Mapping[str, object], layers: int) -> frozenset[str]:
        """Return the modules that PEFT refuses to put a LoRA on: blocks, norms, activations and the like."""
        stem = self.prefix.rpartition(".")[0]
        leaves, plain = {self.embedding}, {f"{stem}.{name}" for name in self.around}
        for layer in range(layers):
            names = [*self.layout, *self.plain]
            if self.is_routed(config, layer):
                # As transformers 5 keeps experts and their routers: otherwise than checkpoints do.
                names = [name for name in names if not name.startswith("mlp.")]
                plain |= {f"{self.prefix}.{layer}.{name}" for name in self.routed_plain}
            leaves |= {f"{self.prefix}.{layer}.{name}" for name in names if name in self.layout}
            plain |= {f"{self.prefix}.{layer}.{name}" for name in names if name in self.plain}
        return frozenset(plain | blocks_of(leaves)) | self.tower(config).others

    @property
    def projections(self) -> tuple[str, ...]:
        """The parts of an expert; none where a LoRA can't sit on experts."""
        return tuple(name.rpartition(".")[2] for name in self.routed if "{}" in name)

    @property
    def down(self) -> str:
        """The part of an expert that leads back to the hidden size."""
        return next(name for name in self.projections if name in ("w2", "down_proj"))

    @property
    def router(self) -> str:
        """What leads to experts, as a layer of the checkpoint calls it."""
        return next((name for name, (out, _) in self.routed.items() if out == "experts"), "")

    @property
    def router_name(self) -> str:
        """Its last name."""
        return self.router.rpartition(".")[2]

    def _modules(self, config: Mapping[str, object], dims: Dims) -> Iterator[tuple[str, tuple[int, int]]]:
        for layer in range(dims["layers"]):
            routed = self.is_routed(config, layer)
            parts = {**self.layout, **self.routed} if routed else self.layout
            for name, (out, into) in parts.items():
                if routed and name.startswith("mlp.") and name in _GATED:
                    continue
                shape = (dims[out], dims[into])
                for expert in range(dims["experts"] if "{}" in name else 1):
                    yield f"{self.prefix}.{layer}.{name.format(expert)}", shape
        if dims["embedding"] != dims["hidden"]:
            stem = self.embedding.rpartition(".")[0]
            yield f"{stem}.project_in", (dims["hidden"], dims["embedding"])
            yield f"{stem}.project_out", (dims["embedding"], dims["hidden"])

    def _dims(self, config: Mapping[str, object]) -> dict[str, int] | None:
        told = {name: config.get(key, self.defaults.get(name)) for name, key in self.fields.items()}
        hidden, heads, layers, vocabulary = (_size(told.get(n)) for n in ("hidden", "heads", "layers", "vocabulary"))
        if not (hidden and heads and layers and vocabulary) or layers > _LAYERS_LIMIT:
            return None
        head_dim = _size(_or(told.get("head_dim"), hidden // heads))
        key_heads = _size(self._key_heads(config, told.get("key_heads"), heads))
        inner = _size(_or(told.get("inner"), 4 * hidden if "inner" in self.fields else None))
        embedding = _size(_or(told.get("embedding"), hidden))
        experts = self._experts(config)
        if not (head_dim and key_heads and inner and embedding and experts):
            return None
        query, key = heads * head_dim, key_heads * head_dim
        expert, shared = (_size(_or(told.get(name), inner)) for name in ("expert", "shared"))
        if not (expert and shared):
            return None
        return {
            "hidden": hidden, "layers": layers, "vocabulary": vocabulary, "inner": inner, "embedding": embedding,
            "query": query, "key": key, "qkv": query + 2 * key, "twice_inner": 2 * inner, "one": 1,
            "experts": experts, "expert": expert, "shared": shared,
        }  # fmt: skip

    def _key_heads(self, config: Mapping[str, object], told: object, heads: int) -> object:
        if self.fields.get("key_heads") == "num_kv_heads" and not config.get("new_decoder_architecture"):
            return 1 if config.get("multi_query", True) else heads  # Falcon before its new architecture
        return heads if told is None else told

    def _experts(self, config: Mapping[str, object]) -> int | None:
        if not self.projections:
            return 1
        told = next((config[name] for name in self.experts if name in config), self.defaults.get("experts"))
        experts = _size(told)
        return experts if experts and experts <= _EXPERTS_LIMIT else None


def blocks_of(modules: Iterable[str]) -> set[str]:
    """Return all that *modules* are in."""
    blocks: set[str] = set()
    for module in modules:
        block = module.rpartition(".")[0]
        while block and block not in blocks:
            blocks.add(block)
            block = block.rpartition(".")[0]
    return blocks


def _or(value: object, default: object) -> object:
    return default if value is None else value


def _size(value: object) -> int | None:
    return value if type(value) is int and 0 < value < _SIZE_LIMIT else None


def _sizes(hidden: int, inner: int, layers: int, heads: int, vocabulary: int, **others: int) -> dict[str, int]:
    return {
        "hidden": hidden, "inner": inner, "layers": layers, "heads": heads, "vocabulary": vocabulary, **others,
    }  # fmt: skip


_BOTH = frozenset({"model.embed_tokens", "lm_head"})
_EMBEDDING = frozenset({"model.embed_tokens"})
_LLAMA = _ATTENTION | _GATED
_MOE_FIELDS = _STANDARD | {"expert": "moe_intermediate_size"}
_GPT2_FIELDS = {
    "hidden": "n_embd", "inner": "n_inner", "layers": "n_layer", "heads": "n_head", "vocabulary": "vocab_size",
}  # fmt: skip
_OPT_FIELDS = _STANDARD | {"inner": "ffn_dim", "embedding": "word_embed_proj_dim"}
_FALCON_FIELDS = _STANDARD | {"inner": "ffn_hidden_size", "key_heads": "num_kv_heads"}

FAMILIES: Mapping[str, Family] = {
    "llama": Family(layout=_LLAMA, takes=_BOTH, defaults=_sizes(4096, 11008, 32, 32, 32000)),
    "mistral": Family(layout=_LLAMA, defaults=_sizes(4096, 14336, 32, 32, 32000, key_heads=8)),
    "mixtral": Family(
        layout=_ATTENTION, routed=_MIXTRAL, is_routed=lambda _config, _layer: True, takes=_BOTH,
        plain=_NORMS,
        defaults=_sizes(4096, 14336, 32, 32, 32000, key_heads=8, experts=8),
    ),
    "qwen2": Family(layout=_LLAMA, defaults=_sizes(4096, 22016, 32, 32, 151936, key_heads=32)),
    "qwen3": Family(
        layout=_LLAMA, takes=_BOTH, plain=(*_PLAIN, *_NORMS_OF_HEADS),
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
        plain=(*_PLAIN, *_NORMS_OF_HEADS),
        defaults=_sizes(2048, 6144, 24, 32, 151936, key_heads=4, expert=768, experts=128),
    ),
    "gemma": Family(layout=_LLAMA, defaults=_sizes(3072, 24576, 28, 16, 256000, key_heads=16, head_dim=256)),
    "gemma2": Family(
        layout=_LLAMA, plain=(*_PLAIN, *_NORMS_OF_MLP),
        defaults=_sizes(2304, 9216, 26, 8, 256000, key_heads=4, head_dim=256),
    ),
    "gemma3_text": Family(
        layout=_LLAMA, plain=(*_PLAIN, *_NORMS_OF_MLP, *_NORMS_OF_HEADS),
        defaults=_sizes(2304, 9216, 26, 8, 262208, key_heads=4, head_dim=256),
    ),
    "gemma3": Family(
        layout=_LLAMA, prefix="model.language_model.layers", embedding="model.language_model.embed_tokens",
        nested="text_config", formerly=("language_model.model.", "model.language_model."), tower=siglip,
        plain=(*_PLAIN, *_NORMS_OF_MLP, *_NORMS_OF_HEADS),
        defaults=_sizes(2304, 9216, 26, 8, 262208, key_heads=4, head_dim=256),
    ),
    "granite": Family(layout=_LLAMA, takes=_BOTH, defaults=_sizes(4096, 11008, 32, 32, 32000)),
    "smollm3": Family(layout=_LLAMA, takes=_EMBEDDING, defaults=_sizes(2048, 11008, 36, 16, 128256, key_heads=4)),
    "olmo2": Family(
        layout=_LLAMA, takes=_EMBEDDING, defaults=_sizes(4096, 11008, 32, 32, 50304),
        plain=("mlp.act_fn", "post_attention_layernorm", "post_feedforward_layernorm", *_NORMS_OF_HEADS),
    ),
    "cohere": Family(
        layout=_LLAMA, takes=_EMBEDDING, plain=("mlp.act_fn", "input_layernorm"),
        defaults=_sizes(8192, 22528, 40, 64, 256000),
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
        plain=("mlp.activation_fn", *_NORMS, "resid_attn_dropout", "resid_mlp_dropout"),
    ),
    "starcoder2": Family(
        layout={**_ATTENTION, "mlp.c_fc": ("inner", "hidden"), "mlp.c_proj": ("hidden", "inner")},
        plain=("mlp.act", *_NORMS),
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
        plain=("mlp.act", *_NORMS, "post_attention_dropout", "post_mlp_dropout"),
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


def family_of(config: Mapping[str, object]) -> Family | None:
    """Return the family that config.json names; None for one that is not known."""
    model_type = config.get("model_type")
    return FAMILIES.get(model_type) if isinstance(model_type, str) else None
