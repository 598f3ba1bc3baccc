"""The bases that lie beside the specs in `examples/trainer`: configs and a tokenizer, and no weights.

`.local/engine/bin/python -m tinymodel.examples` writes them anew; what they are trained on is Python's own library.
"""

from pathlib import Path

from transformers import LlamaConfig, OPTConfig, PretrainedConfig, PreTrainedTokenizerFast

from tinymodel import tokenizing
from tinymodel.tokenizing import CONTEXT

BASES = Path(__file__).parents[2] / "examples/trainer/bases"
VOCABULARY = 512
HIDDEN = 64
COMMON = {"vocab_size": VOCABULARY, "num_hidden_layers": 2, "num_attention_heads": 2, "dtype": "float32"}


def main() -> None:
    """Write every base."""
    tokenizer = tokenizing.train(vocabulary=VOCABULARY, files=10)
    ends = {"bos_token_id": None, "eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id}
    llama = LlamaConfig(
        hidden_size=HIDDEN,
        intermediate_size=3 * HIDDEN,
        num_key_value_heads=1,
        max_position_embeddings=CONTEXT,
        architectures=["LlamaForCausalLM"],
        **COMMON,
        **ends,
    )
    opt = OPTConfig(
        hidden_size=HIDDEN,
        ffn_dim=4 * HIDDEN,
        word_embed_proj_dim=HIDDEN,
        max_position_embeddings=CONTEXT,
        architectures=["OPTForCausalLM"],
        **COMMON,
        **ends,
    )
    _write(BASES / "llama", llama, tokenizer)
    tokenizer.chat_template = None
    _write(BASES / "opt", opt, tokenizer)


def _write(folder: Path, config: PretrainedConfig, tokenizer: PreTrainedTokenizerFast) -> None:
    config.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


main()
