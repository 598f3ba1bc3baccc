"""A tiny model of each architecture, as transformers makes it: run in the heavy environment, `... <folder>`.

Writes `<folder>/<name>/` with config.json and model.safetensors, as `save_pretrained` does, and others.json: the names
of the modules that PEFT puts no LoRA on.
"""

import json
import sys
from pathlib import Path

SIZES: dict[str, object] = {
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 100,
    "bos_token_id": 0,
    "eos_token_id": 0,
    "pad_token_id": 0,
}
_WIDE = SIZES | {"head_dim": 32}
_OWN: dict[str, object] = {"num_hidden_layers": 2, "num_attention_heads": 4, "hidden_size": 64, "vocab_size": 100}
_ENDS: dict[str, object] = {"bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 0}
_MOE: dict[str, object] = {
    "moe_intermediate_size": 48,
    "num_experts": 3,
    "num_experts_per_tok": 2,
    "num_hidden_layers": 3,
}

ARCHITECTURES: dict[str, dict[str, object]] = {
    "llama": SIZES,
    "llama wide": _WIDE,
    "llama tied": SIZES | {"tie_word_embeddings": True},
    "mistral": SIZES | {"head_dim": None},
    "mistral wide": _WIDE,
    "mixtral": SIZES | {"num_local_experts": 3},
    "qwen2": SIZES,
    "qwen3": _WIDE,
    "qwen2_moe": SIZES | _MOE | {"shared_expert_intermediate_size": 80, "mlp_only_layers": [1]},
    "qwen3_moe": _WIDE | _MOE | {"mlp_only_layers": [0], "decoder_sparse_step": 2},
    "gemma": _WIDE,
    "gemma2": _WIDE,
    "gemma3_text": _WIDE,
    "gemma3": {
        "text_config": _WIDE | {"vocab_size": 300},
        "vision_config": {
            "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 1, "num_attention_heads": 2,
            "image_size": 28, "patch_size": 14,
        },
        "mm_tokens_per_image": 4, "image_token_index": 262, "boi_token_index": 255, "eoi_token_index": 256,
        **_ENDS,
    },
    "granite": SIZES,
    **dict.fromkeys(("smollm3", "olmo", "olmo2", "olmo3", "cohere", "cohere2", "exaone4", "seed_oss"), SIZES),
    **dict.fromkeys(("ernie4_5", "ministral3", "nemotron", "arcee", "apertus", "glm", "glm4"), SIZES),
    "helium": SIZES | {"head_dim": 16},
    "phi": SIZES,
    "phi3": SIZES,
    "starcoder2": SIZES,
    "opt": _OWN | _ENDS | {"ffn_dim": 96},
    "opt projected": _OWN | _ENDS | {"ffn_dim": 96, "word_embed_proj_dim": 32},
    "gpt2": {"n_embd": 64, "n_layer": 2, "n_head": 4, "vocab_size": 100, "bos_token_id": 0, "eos_token_id": 0},
    "gpt2 inner": {"n_embd": 64, "n_layer": 2, "n_head": 4, "n_inner": 96, "vocab_size": 100, "bos_token_id": 0,
                   "eos_token_id": 0},
    "gpt_neox": _OWN | _ENDS | {"intermediate_size": 96},
    "falcon": _OWN | _ENDS,
    "falcon grouped": _OWN | _ENDS | {"num_kv_heads": 2, "new_decoder_architecture": True},
    "falcon many": _OWN | _ENDS | {"multi_query": False},
}  # fmt: skip
"""By name, whose first word is the model_type: what its config is made with."""


def main() -> None:
    """Make them all."""
    # Here, for the light environment reads the table.
    from torch import nn
    from transformers import AutoConfig, AutoModelForCausalLM
    from transformers.pytorch_utils import Conv1D

    folder = Path(sys.argv[1])
    for name, sizes in ARCHITECTURES.items():
        config = AutoConfig.for_model(name.split()[0], **sizes)
        model = AutoModelForCausalLM.from_config(config)
        model.save_pretrained(folder / name)
        carrying = (nn.Linear, nn.Embedding, nn.Conv2d, nn.MultiheadAttention, Conv1D)
        others = [module for module, it in model.named_modules() if module and not isinstance(it, carrying)]
        (folder / name / "others.json").write_text(json.dumps(others))


if __name__ == "__main__":
    main()
