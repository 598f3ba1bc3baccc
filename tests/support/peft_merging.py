"""What PEFT merges: run in the heavy environment, makes tiny bases, adapters and, by merge_and_unload, the oracle.

Reads `[{"name", "arch", ...}, ...]` from stdin and writes <folder>/<name>/{base,adapter,merged}; prints, as JSON, a
product that torch computed, so that a test can tell whether numpy's BLAS adds up in the same order on this machine.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import torch
import transformers
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file

HIDDEN, INNER, VOCABULARY = 128, 320, 512
COMMON = {"vocab_size": VOCABULARY, "num_hidden_layers": 2, "num_attention_heads": 4, "pad_token_id": 0}
DENSE = COMMON | {"hidden_size": HIDDEN, "intermediate_size": INNER, "num_key_value_heads": 2, "head_dim": 32}
LINEAR = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
ARCHITECTURES: dict[str, tuple[str, dict[str, Any], list[str]]] = {
    "llama": ("LlamaConfig", DENSE, LINEAR),
    "mistral": ("MistralConfig", DENSE, LINEAR),
    "qwen2": ("Qwen2Config", DENSE | {"tie_word_embeddings": True}, LINEAR),
    "qwen3": ("Qwen3Config", DENSE, LINEAR),
    "gemma2": ("Gemma2Config", DENSE, LINEAR),
    "phi3": ("Phi3Config", DENSE, ["qkv_proj", "o_proj", "gate_up_proj", "down_proj"]),
    "opt": (
        "OPTConfig",
        COMMON | {"hidden_size": HIDDEN, "ffn_dim": INNER, "word_embed_proj_dim": HIDDEN},
        ["q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2"],
    ),
    "gpt2": (
        "GPT2Config",
        {"vocab_size": VOCABULARY, "n_embd": HIDDEN, "n_layer": 2, "n_head": 4, "n_inner": INNER, "n_positions": 64},
        ["c_attn", "c_proj", "c_fc"],
    ),
}


def main(folder: Path) -> None:
    """Make every case."""
    torch.set_num_threads(1)
    for case in json.load(sys.stdin):
        torch.manual_seed(sum(case["name"].encode()))
        make(folder / case["name"], case)
    torch.manual_seed(0)
    left, right = torch.randn(200, 16), torch.randn(16, 300)
    save_file({"left": left, "right": right, "product": left @ right}, folder / "product.safetensors")


def make(folder: Path, case: dict[str, Any]) -> None:
    """Make one base, one adapter, and what PEFT makes of both."""
    config_class, settings, targets = ARCHITECTURES[case["arch"]]
    config = getattr(transformers, config_class)(**(settings | case.get("config", {})))
    dtype = getattr(torch, case.get("dtype", "float32"))
    model = transformers.AutoModelForCausalLM.from_config(config).to(dtype)
    model.save_pretrained(folder / "base", max_shard_size=case.get("max_shard_size", "5GB"))

    lora = {"r": 8, "lora_alpha": 16, "target_modules": targets, "task_type": "CAUSAL_LM"} | case.get("lora", {})
    adapted = get_peft_model(model, LoraConfig(**lora))
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if "lora_" in name:
                parameter.normal_(std=0.05)
    adapted.save_pretrained(folder / "adapter", save_embedding_layers=case.get("save_embedding_layers", False))
    if "adapter_dtype" in case:
        path = folder / "adapter" / "adapter_model.safetensors"
        wanted = getattr(torch, case["adapter_dtype"])
        save_file({name: tensor.to(wanted) for name, tensor in load_file(path).items()}, path)

    # With another dtype asked for, the base is loaded in float32, merged, and rounded at the end.
    into = case.get("into")
    base = transformers.AutoModelForCausalLM.from_pretrained(folder / "base", dtype=torch.float32 if into else dtype)
    merged = PeftModel.from_pretrained(base, folder / "adapter").merge_and_unload()
    if into:
        merged = merged.to(getattr(torch, into))
    merged.save_pretrained(folder / "merged")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
