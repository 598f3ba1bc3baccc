"""What an architecture is, as far as a LoRA is concerned, and the shapes that its config.json then tells."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from .towers import Tower

_SIZE_LIMIT = 2**31
_LAYERS_LIMIT = 1000
_EXPERTS_LIMIT = 4096

Dims = Mapping[str, int]
Layout = Mapping[str, tuple[str, str]]

STANDARD = {
    "hidden": "hidden_size",
    "inner": "intermediate_size",
    "layers": "num_hidden_layers",
    "heads": "num_attention_heads",
    "key_heads": "num_key_value_heads",
    "head_dim": "head_dim",
    "vocabulary": "vocab_size",
}

NORMS = ("input_layernorm", "post_attention_layernorm")
PLAIN = ("mlp.act_fn", *NORMS)


def _dense(_config: Mapping[str, object], _layer: int) -> bool:
    return False


def _blind(_config: Mapping[str, object]) -> Tower:
    return Tower()


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """One model type. *takes*: on which of embedding and head vLLM's class takes a LoRA."""

    layout: Layout
    prefix: str = "model.layers"
    embedding: str = "model.embed_tokens"
    head: str = "lm_head"
    takes: frozenset[str] = frozenset()
    fields: Mapping[str, str] = field(default_factory=lambda: STANDARD)
    defaults: Mapping[str, int] = field(default_factory=dict)
    routed: Layout = field(default_factory=dict)
    is_routed: Callable[[Mapping[str, object], int], bool] = _dense
    experts: tuple[str, ...] = ("num_experts", "num_local_experts")
    # The modules of a layer of experts that carry no LoRA, as transformers 5 keeps them.
    routed_plain: tuple[str, ...] = ("mlp", "mlp.experts", "mlp.experts.act_fn")
    # Modules that are no layers of weights, on which PEFT puts no LoRA: those of a layer, and those around the layers.
    plain: tuple[str, ...] = PLAIN
    around: tuple[str, ...] = ("norm", "rotary_emb")
    # Modules of a layer on which PEFT puts a LoRA and vLLM takes none.
    unserved: tuple[str, ...] = ()
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

    def unserved_modules(self, config: Mapping[str, object], layers: int) -> frozenset[str]:
        """Return the modules on which PEFT puts a LoRA where the config means them, and vLLM takes none."""
        parts = {f"{self.prefix}.{layer}.{name}" for layer in range(layers) for name in self.unserved}
        return self.tower(config).carrying | parts

    @property
    def projections(self) -> tuple[str, ...]:
        """The parts of an expert; none where a LoRA can't sit on experts."""
        return tuple(name.rpartition(".")[2] for name in self.routed if "{}" in name)

    @property
    def down(self) -> str:
        """The part of an expert that leads back to the hidden size."""
        return next(name for name in self.projections if name in ("w2", "down_proj"))

    @property
    def joined(self) -> tuple[str, ...]:
        """The other parts, which transformers 5 keeps in one."""
        return tuple(name for name in self.projections if name != self.down)

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
                if routed and name in self.layout and name.startswith("mlp."):
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
