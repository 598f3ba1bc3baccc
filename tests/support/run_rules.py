"""What a LoRATrainingJob may say of how it runs: fields that are taken, fields that are refused, and the message."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

Fields = dict[str, Any]

RUN_RULES: Final[Mapping[str, tuple[Fields, Fields, str]]] = {
    "checkpoints by time": (
        {"spec.checkpoint": {"intervalSeconds": 60, "keep": 3, "retention": "Retain"}},
        {"spec.checkpoint": {"intervalSeconds": 0}},
        "spec.checkpoint.intervalSeconds",
    ),
    "one volume for checkpoints": (
        {"spec.checkpoint": {"volume": {"claimName": "checkpoints"}}},
        {"spec.checkpoint": {"volume": {"claimName": "checkpoints", "emptyDir": {}}}},
        "give claimName or emptyDir, not both",
    ),
    "time to write a checkpoint": (
        {"spec.checkpoint": {"volume": {"emptyDir": {"sizeLimit": "1Gi"}}, "gracePeriodSeconds": 600}},
        {"spec.checkpoint": {"gracePeriodSeconds": 5}},
        "spec.checkpoint.gracePeriodSeconds",
    ),
    "a split or a fraction": (
        {"spec.evaluation": {"fraction": "0.1"}},
        {"spec.evaluation": {"fraction": "0.1", "split": "test"}},
        "exactly one of split and fraction must be given",
    ),
    "a metric of the evaluation": (
        {"spec.evaluation": {"split": "test", "metric": "eval_mean_token_accuracy", "better": "Higher"}},
        {"spec.evaluation": {"split": "test", "metric": "loss"}},
        "spec.evaluation.metric",
    ),
    "the best of the epochs": (
        {"spec.evaluation": {"split": "test", "schedule": "Epoch", "keep": "Best"}},
        {"spec.evaluation": {"split": "test", "keep": "Best"}},
        "keep: Best needs schedule: Epoch",
    ),
    "a gate that asks for something": (
        {"spec.evaluation": {"split": "test", "gate": {"against": "Current", "margin": "-0.02"}}},
        {"spec.evaluation": {"split": "test", "gate": {"margin": "0.02"}}},
        "a gate needs threshold, against, or both",
    ),
    "a limit is a decimal": (
        {"spec.evaluation": {"split": "test", "gate": {"threshold": "1.9"}}},
        {"spec.evaluation": {"split": "test", "gate": {"threshold": "low"}}},
        "spec.evaluation.gate.threshold",
    ),
    "processes on a node": (
        {"spec.parallelism": {"procPerNode": 8}},
        {"spec.parallelism": {"procPerNode": 0}},
        "spec.parallelism.procPerNode",
    ),
    "a tag": (
        {"spec.output.hub.tag": "v1.0"},
        {"spec.output.hub.tag": "v1 of support"},
        "spec.output.hub.tag",
    ),
}
"""`lora_trainer.spec` holds a spec that no apiserver has seen to the same."""
