"""Making the model: its tokenizer, and random weights from a seed.

Runs under the heavy environment. Two models of the same size and seed are the same byte for byte.
"""

from pathlib import Path

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from tinymodel import HIDDEN, SEED, tokenizing
from tinymodel.tokenizing import CONTEXT

VOCABULARY = 2048
CORPUS_FILES = 60


def make(directory: Path, *, seed: int = SEED, hidden: int = HIDDEN) -> None:
    """Write model, tokenizer and chat template, readable by any user (pods run as another one)."""
    tokenizer = tokenizing.train(vocabulary=VOCABULARY, files=CORPUS_FILES)
    config = LlamaConfig(
        hidden_size=hidden,
        intermediate_size=3 * hidden,
        num_hidden_layers=2,
        num_attention_heads=hidden // 32,
        num_key_value_heads=max(1, hidden // 64),
        vocab_size=VOCABULARY,
        max_position_embeddings=CONTEXT,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        dtype="float32",
    )
    torch.manual_seed(seed)
    LlamaForCausalLM(config).save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    directory.chmod(0o755)
    for file in directory.iterdir():
        file.chmod(0o644)
