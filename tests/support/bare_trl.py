"""What trl and peft make of the same data without us: a script as people write it, to hold lora-train's results to.

Runs in the heavy environment. Reads `[{"model", "rows", "folder", "method", "lora", "quantized", "config", "prompts"}]`
from stdin; saves each adapter as it was trained and prints `{"share": ..., "logits": ...}` for each: the part of the
tokens that trl's own labels count, and what the trained model says of the prompts.
"""

import json
import sys
from pathlib import Path
from typing import Any

import datasets
import torch
from peft import LoraConfig
from transformers import AutoTokenizer, BitsAndBytesConfig
from trl import DPOConfig, DPOTrainer, SFTConfig, SFTTrainer

STEPS: dict[str, Any] = {
    "max_steps": 6,
    "per_device_train_batch_size": 4,
    "learning_rate": 1e-2,
    "max_length": 128,
    "logging_steps": 1,
    "seed": 42,
    "model_init_kwargs": {"dtype": "float32"},
    "bf16": False,
    "use_cpu": True,
    "save_strategy": "no",
    "report_to": "none",
    "disable_tqdm": True,
}
FOUR_BITS = {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4", "bnb_4bit_compute_dtype": "float32"}


def train(asked: dict[str, Any]) -> dict[str, Any]:
    """Train once, as asked."""
    config, trainer = (DPOConfig, DPOTrainer) if asked["method"] == "DPO" else (SFTConfig, SFTTrainer)
    made = trainer(
        model=asked["model"],
        args=config(output_dir=asked["folder"], **STEPS, **asked["config"]),
        train_dataset=datasets.Dataset.from_list(asked["rows"]),
        processing_class=AutoTokenizer.from_pretrained(asked["model"]),
        peft_config=LoraConfig(task_type="CAUSAL_LM", target_modules="all-linear", **asked["lora"]),
        quantization_config=BitsAndBytesConfig(**FOUR_BITS) if asked["quantized"] else None,
    )
    share = counted(made.train_dataset) if asked["method"] == "SFT" else None
    made.train()
    made.model.save_pretrained(Path(asked["folder"]) / "adapter")
    return {"share": share, "logits": logits(made.model, asked["model"], asked["prompts"])}


def counted(dataset: Any) -> float:
    """Return the part of trl's labels that count."""
    labels = [label for row in dataset for label in row["labels"]]
    return float(sum(label != -100 for label in labels) / len(labels))


def logits(model: Any, base: str, prompts: list[str]) -> list[list[float]]:
    """Return what comes after each prompt, as logits."""
    tokenizer = AutoTokenizer.from_pretrained(base)
    model.eval()
    with torch.no_grad():
        return [model(**tokenizer(prompt, return_tensors="pt")).logits[0, -1].tolist() for prompt in prompts]


if __name__ == "__main__":
    torch.set_num_threads(1)
    print("\n" + json.dumps([train(asked) for asked in json.load(sys.stdin)]))
