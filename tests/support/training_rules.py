"""What a LoRATrainingJob may say of its training: fields that are taken, fields that are refused, and the message."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

Fields = dict[str, Any]

SOURCE: Final = {"source": {"configMapRef": {"name": "support", "key": "train.jsonl"}}}
DIGEST: Final = "a" * 64
PREFERENCE: Final = {"spec.method": "DPO", "spec.dataset.format": "Preference"}

TRAINING_RULES: Final[Mapping[str, tuple[Fields, Fields, str]]] = {
    "a method": (PREFERENCE, {"spec.method": "PPO"}, "spec.method"),
    "DPO needs preferences": (PREFERENCE, {"spec.method": "DPO"}, "Preference and method: DPO belong together"),
    "preferences need DPO": (
        {"spec.dataset.format": "Text"},
        {"spec.dataset.format": "Preference"},
        "Preference and method: DPO belong together",
    ),
    "beta is DPO's": (
        PREFERENCE | {"spec.training.beta": "0.05"},
        {"spec.training.beta": "0.05"},
        "training.beta belongs to method: DPO",
    ),
    "packing is SFT's": (
        {"spec.training.packing": True},
        PREFERENCE | {"spec.training.packing": True},
        "belong to method: SFT",
    ),
    "masked losses are SFT's": (
        {"spec.training": {"assistantOnlyLoss": True, "completionOnlyLoss": True}},
        PREFERENCE | {"spec.training": {"completionOnlyLoss": False}},
        "belong to method: SFT",
    ),
    "DPO compares with the base as it is": (
        {"spec.lora.initLoraWeights": "Pissa"},
        PREFERENCE | {"spec.lora.initLoraWeights": "Pissa"},
        "change the base",
    ),
    "Pissa needs all bits of the base": (
        {"spec.quantization": {"bnb4bitQuantType": "FP4", "bnb4bitUseDoubleQuant": True}},
        {"spec.quantization": {}, "spec.lora.initLoraWeights": "Olora"},
        "a base that is not quantised",
    ),
    "four bits of two kinds": (
        {"spec.quantization": {"bnb4bitQuantType": "NF4", "bnb4bitComputeDtype": "BFloat16"}},
        {"spec.quantization": {"bnb4bitQuantType": "nf4"}},
        "bnb4bitQuantType",
    ),
    "an init": (
        {"spec.lora.initLoraWeights": "PissaNiter16"},
        {"spec.lora.initLoraWeights": "LoftQ"},
        "initLoraWeights",
    ),
    "no conversion of rsLoRA with patterns": (
        {"spec.lora": {"initLoraWeights": "Pissa", "useRslora": True}},
        {"spec.lora": {"initLoraWeights": "Pissa", "useRslora": True, "rankPattern": {"q_proj": 4}}},
        "can't be converted with useRslora",
    ),
    "an orthogonal start has pairs": (
        {"spec.lora": {"initLoraWeights": "Orthogonal", "r": 8}},
        {"spec.lora": {"initLoraWeights": "Orthogonal", "r": 7}},
        "needs an even r",
    ),
    "patterns name modules": (
        {"spec.lora": {"rankPattern": {"q_proj": 4}, "alphaPattern": {"layers.0.mlp.up_proj": 8}}},
        {"spec.lora": {"rankPattern": {"^model.*": 4}}},
        "a key is a module",
    ),
    "modules to leave alone": (
        {"spec.lora.excludeModules": ["lm_head"]},
        {"spec.lora.excludeModules": [".*"]},
        "excludeModules",
    ),
    "one start": (
        {"spec.lora.initFrom": {"hub": {"repo": "acme/first", "revision": "v1"}}},
        {"spec.lora": {"initFrom": {"hub": {"repo": "acme/first"}}, "initLoraWeights": "Gaussian"}},
        "no use with initFrom",
    ),
    "a start is somewhere": (
        {"spec.lora.initFrom": {"hub": {"repo": "acme/first", "tokenSecretRef": {"name": "hf", "key": "token"}}}},
        {"spec.lora.initFrom": {}},
        "hub must be given",
    ),
    "a file of a web server": (
        {"spec.dataset.source": {"url": {"uri": "https://data.example/a.jsonl", "sha256": DIGEST}}},
        {"spec.dataset.source": {"url": {"uri": "file:///etc/passwd", "sha256": DIGEST}}},
        "url.uri",
    ),
    "a file of a web server has a digest": (
        {"spec.dataset.source": {"url": {"uri": "http://data.example/a.csv", "sha256": DIGEST}}},
        {"spec.dataset.source": {"url": {"uri": "http://data.example/a.csv"}}},
        "sha256",
    ),
    "a file of a volume": (
        {"spec.dataset.source": {"pvc": {"claimName": "data", "path": "support/v3.parquet"}}},
        {"spec.dataset.source": {"pvc": {"claimName": "data", "path": "support/../../v3.parquet"}}},
        "path must stay in the volume",
    ),
    "a volume's path is relative": (
        {"spec.dataset.source": {"pvc": {"claimName": "data", "path": "support"}}},
        {"spec.dataset.source": {"pvc": {"claimName": "data", "path": "/support"}}},
        "pvc.path",
    ),
    "a template": (
        {"spec.dataset": {**SOURCE, "format": "Template", "template": {"prompt": "Q: {q}", "completion": " {a}"}}},
        {"spec.dataset": {**SOURCE, "format": "Template"}},
        "template belongs to format: Template",
    ),
    "no template without its format": (
        {"spec.dataset": {**SOURCE, "format": "Template", "template": {"text": "{q} {a}"}}},
        {"spec.dataset": {**SOURCE, "format": "Text", "template": {"text": "{q} {a}"}}},
        "template belongs to format: Template",
    ),
    "a template is a whole": (
        {"spec.dataset": {**SOURCE, "format": "Template", "template": {"text": "{q} {a}"}}},
        {"spec.dataset": {**SOURCE, "format": "Template", "template": {"prompt": "{q}"}}},
        "give prompt and completion, or text",
    ),
    "columns by other names": (
        {"spec.dataset.columnMap": {"messages": "conversation"}},
        {"spec.dataset.columnMap": {"x" * 65: "conversation"}},
        "at most 64 characters",
    ),
    "a part of the rows": (
        {"spec.dataset.maxSamples": 100},
        {"spec.dataset.maxSamples": 0},
        "maxSamples",
    ),
    "an optimiser": (
        {"spec.training": {"optim": "PagedAdamw32bit", "maxGradNorm": "0.3"}},
        {"spec.training.optim": "paged_adamw_32bit"},
        "spec.training.optim",
    ),
}
"""The same words as in a spec that no apiserver has seen: `lora_trainer.spec` holds to them too."""
