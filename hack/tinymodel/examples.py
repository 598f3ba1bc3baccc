"""The bases that lie beside the specs in `examples/trainer`: configs and a tokenizer, and no weights.

`.local/engine/bin/python -m tinymodel.examples` writes them anew; what they are trained on is Python's own library.
"""

import os
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, OPTConfig, PretrainedConfig, PreTrainedTokenizerFast

from tinymodel.model import CHAT_TEMPLATE, CONTEXT, END, PAD, ROLES

BASES = Path(__file__).parents[2] / "examples/trainer/bases"
VOCABULARY = 512
HIDDEN = 64
COMMON = {"vocab_size": VOCABULARY, "num_hidden_layers": 2, "num_attention_heads": 2, "dtype": "float32"}


def main() -> None:
    """Write every base."""
    tokenizer = _tokenizer()
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


def _tokenizer() -> PreTrainedTokenizerFast:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=[PAD, END, *ROLES],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    files = sorted(Path(os.__file__).parent.glob("*.py"))[:10]
    tokenizer.train_from_iterator((file.read_text(errors="replace") for file in files), trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token=END,
        pad_token=PAD,
        additional_special_tokens=list(ROLES),
        chat_template=CHAT_TEMPLATE,
        model_max_length=CONTEXT,
        clean_up_tokenization_spaces=False,
    )


main()
