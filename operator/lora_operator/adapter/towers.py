"""What of a model sees, by its modules' names: PEFT puts LoRAs on some of them, vLLM on none unless it is told to.

As transformers 5 has it in Gemma 3.
"""

from collections.abc import Mapping
from dataclasses import dataclass

_TOWER, _PROJECTOR = "model.vision_tower", "model.multi_modal_projector"
_CARRYING = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.out_proj", "mlp.fc1", "mlp.fc2")
_PLAIN = ("", "layer_norm1", "self_attn", "layer_norm2", "mlp", "mlp.activation_fn")
_LAYERS_LIMIT = 1000
# What transformers takes where config.json says nothing.
_LAYERS = 12


@dataclass(frozen=True, slots=True)
class Tower:
    """*carrying* are the modules that PEFT can put a LoRA on, *others* those that it refuses as targets."""

    carrying: frozenset[str] = frozenset()
    others: frozenset[str] = frozenset()


def siglip(config: Mapping[str, object]) -> Tower:
    """Return the modules of SigLIP and of what leads from it to the decoder."""
    seeing = config.get("vision_config")
    seeing = seeing if isinstance(seeing, Mapping) else {}
    told = seeing.get("num_hidden_layers", _LAYERS)
    layers = told if isinstance(told, int) and 0 <= told <= _LAYERS_LIMIT else 0
    around = ["", "embeddings", "encoder", "encoder.layers", "post_layernorm"]
    carrying = ["embeddings.patch_embedding", "embeddings.position_embedding"]
    if seeing.get("vision_use_head", True):
        around += ["head", "head.layernorm", "head.mlp", "head.mlp.activation_fn"]
        carrying += ["head.attention", "head.attention.out_proj", "head.mlp.fc1", "head.mlp.fc2"]
    for layer in range(layers):
        carrying += [f"encoder.layers.{layer}.{name}" for name in _CARRYING]
        around += [f"encoder.layers.{layer}.{name}".removesuffix(".") for name in _PLAIN]
    projector = {_PROJECTOR, f"{_PROJECTOR}.mm_soft_emb_norm", f"{_PROJECTOR}.avg_pool"}
    return Tower(
        frozenset(f"{_TOWER}.{name}" for name in carrying),
        frozenset(projector.union(f"{_TOWER}.{name}".removesuffix(".") for name in around)),
    )
