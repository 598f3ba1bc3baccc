"""Adapters as they lie on Hubs: configs by the versions of PEFT that wrote them, and what else is beside them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from itertools import accumulate
from operator import or_

from lora_operator.adapter import CONFIG, Code
from support.adapter_corpus.case import Case, bad, good
from support.adapters import AdapterFiles, make_adapter

_COMMON: Mapping[str, object] = {
    "base_model_name_or_path": "huggyllama/llama-7b", "bias": "none", "fan_in_fan_out": False, "inference_mode": True,
    "lora_alpha": 16, "lora_dropout": 0.05, "modules_to_save": None, "peft_type": "LORA", "r": 8,
    "target_modules": ["q_proj", "v_proj"], "task_type": "CAUSAL_LM",
}  # fmt: skip
_ADDED: dict[str, dict[str, object]] = {
    "0.4": {"auto_mapping": None, "init_lora_weights": True, "layers_pattern": None, "layers_to_transform": None,
            "revision": None},
    "0.8": {"alpha_pattern": {}, "loftq_config": {}, "megatron_config": None, "megatron_core": "megatron.core",
            "rank_pattern": {}, "use_rslora": False},
    "0.11": {"layer_replication": None, "use_dora": False},
    "0.14": {"eva_config": None, "exclude_modules": None, "lora_bias": False},
    "0.15": {"corda_config": None, "trainable_token_indices": None},
    "0.17": {"loftq_config": {}, "qalora_group_size": 16, "target_parameters": None, "use_qalora": False},
    "0.18": {"alora_invocation_tokens": None, "arrow_config": None, "ensure_weight_tying": False,
             "peft_version": "0.18.0"},
}  # fmt: skip
_BY_VERSION = dict(zip(_ADDED, accumulate(_ADDED.values(), or_), strict=True))
_PARTS = "self_attn|attention|attn|mixer|mlp|feed_forward|ffn|dense|mixer"
_NAMES = "q_proj|k_proj|v_proj|o_proj|gate_proj|up_proj|down_proj"
_UNSLOTH = (
    rf"(?:.*?(?:vision|image|visual|patch|language|text).*?(?:{_PARTS}).*?\.(?:{_NAMES}))"
    rf"|(?:\bmodel\.layers\.[\d]{{1,}}(?!.*\.experts\.\d)\..*?(?:{_PARTS}).*?\.(?:(?:{_NAMES})))"
)
_CHECKPOINT = (
    "optimizer.pt", "scheduler.pt", "rng_state.pth", "training_args.bin", "trainer_state.json", "tokenizer.json",
    "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "chat_template.jinja", ".gitattributes",
    "README.md", "adapter_model.bin", "new_embeddings.safetensors",
)  # fmt: skip


def _of(config: Mapping[str, object]) -> AdapterFiles:
    return make_adapter().with_file(CONFIG, json.dumps({**_COMMON, **config}).encode())


def _beside(*names: str) -> AdapterFiles:
    made = make_adapter()
    for name in names:
        made = made.with_file(name, b"\x80\x02.")
    return made


def _mlx() -> AdapterFiles:
    config = {"fine_tune_type": "lora", "num_layers": 16, "lora_parameters": {"rank": 8, "scale": 20.0}}
    made = make_adapter()
    weights = made.files["adapter_model.safetensors"]
    only = made.with_file("adapter_model.safetensors", None).with_file("adapters.safetensors", weights)
    return only.with_file(CONFIG, json.dumps(config).encode())


OF_OLD_GOOD: tuple[Case, ...] = (
    good("as PEFT 0.2 wrote it", lambda: _of({"enable_lora": None, "merge_weights": False})),
    *(
        good(f"as PEFT {version} wrote it", lambda config=config: _of(config))  # type: ignore[misc]
        for version, config in _BY_VERSION.items()
    ),
    good("as Unsloth writes it", lambda: _of({
        **_BY_VERSION["0.18"], "base_model_name_or_path": "unsloth/llama-3-8b-bnb-4bit", "task_type": None,
        "auto_mapping": {"base_model_class": "LlamaForCausalLM", "unsloth_fixed": True},
    })),
    good("as Unsloth writes its targets today", lambda: _of({**_BY_VERSION["0.18"], "target_modules": _UNSLOTH}),
         Code.NOT_CHECKED),
    good("as torchtune writes it", lambda: make_adapter().with_file(CONFIG, json.dumps({
        "r": 8, "lora_alpha": 16, "target_modules": ["q_proj", "v_proj"], "peft_type": "LORA"}).encode())),
    good("a checkpoint with all its files", lambda: _beside(*_CHECKPOINT)),
    good("an index beside the one file", lambda: _beside("adapter_model.safetensors.index.json")),
)  # fmt: skip

OF_OLD_BAD: tuple[Case, ...] = (
    bad("as MLX writes it", Code.MISSING_FILE, _mlx),
    bad("a checkpoint with all its files, whose weights are a pickle", Code.PICKLE_ONLY,
        lambda: _beside(*_CHECKPOINT).with_file("adapter_model.safetensors", None)),
)  # fmt: skip
