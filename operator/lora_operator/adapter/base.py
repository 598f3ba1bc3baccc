"""The base model as the rules see it: the shape of every module that a LoRA can sit on.

Best made from the base's own safetensors headers, else derived from its config.json for the families below. What can't
be told is None, never a guess: the caller then says that shapes can't be checked.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from .header import Header

EMBEDDING = "model.embed_tokens"
HEAD = "lm_head"
_MODULE = re.compile(
    r"model\.layers\.(0|[1-9]\d{0,4})\.(self_attn\.[qkvo]_proj|mlp\.(gate|up|down)_proj)|model\.embed_tokens|lm_head"
)
_QUANTISED = frozenset({"U8", "I8", "I32", "U32", "I64"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Base:
    """A dense decoder. *modules* maps a module's full name to its weight's (rows, columns) = (out, in)."""

    layers: int
    modules: Mapping[str, tuple[int, int]]
    # vLLM takes a LoRA on embed_tokens and lm_head only where the model's class names them; None: unknown family.
    serves_embeddings: bool | None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Family:
    """What transformers' config class of a model type fills in, and what vLLM's model class takes."""

    serves_embeddings: bool
    kv_heads: int | None = None
    head_dim: int | None = None


_FAMILIES = {
    "llama": _Family(serves_embeddings=True),
    "mistral": _Family(serves_embeddings=True, kv_heads=8),
    "qwen2": _Family(serves_embeddings=False, kv_heads=32),
    "qwen3": _Family(serves_embeddings=True, kv_heads=32, head_dim=128),
}
_SIZE_LIMIT = 2**31
_LAYERS_LIMIT = 1000


def base_from_config(config: Mapping[str, object]) -> Base | None:
    """Derive the shapes from a config.json as transformers would; None for a family or a config we don't know."""
    family = _family(config)
    if family is None:
        return None
    hidden, inner, layers, heads, vocabulary = (
        _size(config.get(name))
        for name in ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "vocab_size")
    )
    if not (hidden and inner and layers and heads and vocabulary) or layers > _LAYERS_LIMIT:
        return None
    kv_heads = _size(config.get("num_key_value_heads", family.kv_heads) or heads)
    head_dim = _size(config.get("head_dim", family.head_dim) or hidden // heads)
    if not (kv_heads and head_dim):
        return None
    layer = {
        "self_attn.q_proj": (heads * head_dim, hidden),
        "self_attn.k_proj": (kv_heads * head_dim, hidden),
        "self_attn.v_proj": (kv_heads * head_dim, hidden),
        "self_attn.o_proj": (hidden, heads * head_dim),
        "mlp.gate_proj": (inner, hidden),
        "mlp.up_proj": (inner, hidden),
        "mlp.down_proj": (hidden, inner),
    }
    modules = {f"model.layers.{index}.{name}": shape for index in range(layers) for name, shape in layer.items()}
    modules |= {EMBEDDING: (vocabulary, hidden), HEAD: (vocabulary, hidden)}
    return Base(layers=layers, modules=modules, serves_embeddings=family.serves_embeddings)


def base_from_headers(headers: Iterable[Header], config: Mapping[str, object] | None = None) -> Base | None:
    """Take the shapes from the headers of all of the base's shards; None for another layout, or quantised weights.

    *config*, where there is one, tells the family, and with it whether vLLM takes a LoRA on the embeddings.
    """
    modules: dict[str, tuple[int, int]] = {}
    for name, shape in _matrices(headers):
        if shape is None or _MODULE.fullmatch(name) is None:
            return None
        modules[name] = shape
    layers = {int(name.split(".")[2]) for name in modules if name.startswith("model.layers.")}
    # All shards, whole layers: a base of which a part is missing would make good modules look unknown.
    if not layers or layers != set(range(len(layers))) or EMBEDDING not in modules:
        return None
    if len(modules.keys() - {EMBEDDING, HEAD}) != 7 * len(layers):
        return None
    modules.setdefault(HEAD, modules[EMBEDDING])  # tied: the head is the embedding, stored once
    family = _family(config or {})
    return Base(layers=len(layers), modules=modules, serves_embeddings=family.serves_embeddings if family else None)


def _matrices(headers: Iterable[Header]) -> Iterator[tuple[str, tuple[int, int] | None]]:
    """Yield each module that has a matrix; a shape of None where it is packed and tells nothing."""
    for header in headers:
        for name, tensor in header.tensors.items():
            module, _, kind = name.rpartition(".")
            if len(tensor.shape) == 2:
                plain = kind == "weight" and tensor.dtype not in _QUANTISED
                yield module, (tensor.shape[0], tensor.shape[1]) if plain else None
            elif len(tensor.shape) > 2:
                yield module, None


def _family(config: Mapping[str, object]) -> _Family | None:
    model_type = config.get("model_type")
    return _FAMILIES.get(model_type) if isinstance(model_type, str) else None


def _size(value: object) -> int | None:
    return value if type(value) is int and 0 < value < _SIZE_LIMIT else None
