"""What was not saved by PEFT, told by names of tensors and files and by how a file begins, and what to do about it.

Words alone. The rules that refuse such an adapter stand elsewhere, and ask here once they have refused.
"""

import re
from collections.abc import Mapping
from typing import Final

from .findings import repr_bounded
from .names import CONFIG, WEIGHTS

_MERGE: Final = "merge it into the base with PEFT's merge_and_unload"
_LEAVE_OUT: Final = "with save_embedding_layers=False"
UNWRAP: Final = "unwrap the model before save_pretrained"
TRANSPOSE: Final = "transpose lora_A and lora_B of every module: PEFT has (rank, in) and (out, rank), MLX the reverse"
_FUSE: Final = "merge it into the base (mlx_lm.fuse) and serve that, or train with PEFT"

WRAPPERS: Final = frozenset({"_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module", "module"})
"""What torch.compile, FSDP, activation checkpointing, and DataParallel or DeepSpeed leave in the names of modules."""

# The first that fits a tensor's name: what is found, and the fix. Compiled when one is asked for: importing the library
# is to cost next to nothing.
_TENSORS: Final = (
    ("lora_magnitude_vector", "in the file", f"train without use_dora, or {_MERGE}"),
    (
        r"(?:^|\.)v_head\.",
        "a value head, which TRL trains beside the model",
        "save the model's adapter alone (model.pretrained_model.save_pretrained)",
    ),
    (r"\.bias", "in the file", f"train without bias and lora_bias, or {_MERGE}"),
    ("token_adapter|trainable_tokens", "in the file", f"train without trainable_token_indices, or {_MERGE}"),
    (
        r"\.linear_(?:in|out)\.weight$",
        "a name that NeMo gives",
        "export it to PEFT's format with NeMo: llm.export_ckpt with target='hf-peft'",
    ),
    (
        r"lora_(?:up|down)\b|\.alpha$|\.(?:hada|lokr)_",
        "a name that kohya's sd-scripts or LyCORIS give",
        "convert it to PEFT's format, if it is of a language model; else it can't be served by vLLM",
    ),
    (
        r"^unet\.|^text_encoder|transformer_blocks\.",
        "a name that diffusers gives",
        "serve it with diffusers: it is of a model of images, no language model",
    ),
    (
        rf"(?:^|\.)(?:{'|'.join(sorted(WRAPPERS))})\.",
        "a name out of a wrapped model (torch.compile, FSDP, DeepSpeed)",
        UNWRAP,
    ),
    (r"\.lora_[ab]$", "a name that MLX gives", _FUSE),
    (
        r"\.lora_[ab]\.weight$",
        "a name that torchtune gives",
        "take the adapter_model.safetensors that torchtune's FullModelHFCheckpointer writes for PEFT",
    ),
    (
        r"\.h\.\d+\.(?:attn\.(?:attn|qkv|proj|projection)|mlp\.(?:fc|fc_1|fc_2|proj))\.lora_[AB]$",
        "a name that LitGPT gives",
        "merge it (litgpt merge_lora, then litgpt convert_from_litgpt) and serve that, or train with PEFT",
    ),
    (
        r"\.lora_[AB]$",
        "a name that loralib gives, without .weight",
        "rename the tensors to base_model.model.<module>.lora_A.weight and .lora_B.weight, or train with PEFT",
    ),
    (
        r"\.lora_(?:embedding_)?[AB]\.default\b",
        "a name with .default in it, the adapter's own in memory",
        "save the adapter with PEFT's save_pretrained, not its state_dict; or take .default out of the names",
    ),
    (
        r"^base_model\.model\.base_model\.",
        "a name with base_model.model. twice",
        "call get_peft_model once, or take one base_model.model. out of the names",
    ),
    (
        r"^(?!base_model\.model\.).*\.(?:lora_[AB]\.weight|lora_embedding_[AB])$",
        "a name without base_model.model. in front",
        "save the adapter with PEFT's save_pretrained, or put base_model.model. in front of the names",
    ),
    (
        r"^base_model\.model\.(?!.*lora).*\.weight$",
        "in the file",
        f"save the adapter again with PEFT's save_pretrained, {_LEAVE_OUT}; {_MERGE} if it was one of modules_to_save",
    ),
    ("", "in the file", "save the adapter with PEFT's save_pretrained, which gives no such name"),
)

_BEGINNINGS: Final = (
    (
        (b"version https://git-lfs",),
        "a git-lfs pointer, not the file that it stands for",
        "run git lfs pull where it was cloned, or fetch the file with hf download",
    ),
    (
        (b"<!doctype html", b"<html", b"<head", b"<?xml"),
        "a web page, not the file",
        "download the file itself (hf download); a page comes where its address is not the file's, or needs a token",
    ),
    (
        (b"pk\x03\x04",),
        "a zip archive, as torch.save writes for a pickle",
        "save the adapter with safe_serialization=True; a pickle is never opened",
    ),
)
_BEGINNING: Final = 256

# What to do about a file that may be the weights: the first that its name begins with.
_FILES: Final = {
    "adapters.": f"if PEFT saved it, rename it to {WEIGHTS}; if MLX did, {_FUSE}",
    "pytorch_lora_weights.": f"if PEFT saved it, rename it to {WEIGHTS}; if diffusers did, it is of a model of images",
    "model": f"if it holds the adapter alone, rename it to {WEIGHTS}; if it is the merged model, serve it as a model",
    "": f"if PEFT saved it, rename it to {WEIGHTS}",
}

# What texts were surely meant to be, and what is then not set; Python takes any text for true.
_IN_QUOTES: Final = {"false": "false", "none": "null", "null": "null"}


def explain_tensor(name: str) -> tuple[str, str]:
    """Say of a tensor that is no half of a LoRA under PEFT's names what it looks like, and what to do."""
    return next((found, fix) for sign, found, fix in _TENSORS if re.search(sign, name))


def explain_beginning(data: bytes) -> tuple[str, str] | None:
    """Say what a file is, of which *data* is the start, and what to do; None where that can't be told."""
    start = data[:_BEGINNING].lstrip().lower()
    return next(((found, fix) for signs, found, fix in _BEGINNINGS if start.startswith(signs)), None)


def explain_file(name: str) -> str:
    """Say what to do where the weights may lie under this name."""
    return next(fix for start, fix in _FILES.items() if name.startswith(start))


def explain_text(value: object, fix: str) -> str:
    """Say what to do about a field that is wrong because of quotes; else *fix*."""
    plain = _IN_QUOTES.get(value.lower()) if isinstance(value, str) else None
    return f"write {plain} in {CONFIG}, without quotes" if plain else fix


def explain_kind(config: Mapping[str, object]) -> tuple[str, str]:
    """Say what a config's peft_type is, where it is not "LORA", and what to do."""
    kind = config.get("peft_type")
    if kind is None or (isinstance(kind, str) and kind.upper() == "LORA"):
        found = repr_bounded(kind) if "peft_type" in config else "missing"
        return found, f'write "LORA" in {CONFIG}, if it is a plain LoRA'
    return (
        repr_bounded(kind),
        "only LoRA adapters can be served beside a base; PEFT can convert some other kinds (convert_to_lora)",
    )
