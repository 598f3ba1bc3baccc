"""What PEFT answers: run in the heavy environment, reads `{"model", "adapter", "prompts", "max_tokens"}` from stdin.

Prints `{"base": [...], "adapter": [...]}`: the greedy continuation of each prompt, without and with the adapter. Where
`adapters` is asked, a mapping of names to folders, it prints `{"answers": {name: [...]}, "logits": {name: [[...]]}}`.
"""

import json
import sys
from typing import Any

import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer


def main() -> None:
    """Answer the prompts."""
    asked = json.load(sys.stdin)
    torch.set_num_threads(1)
    if "adapters" not in asked:
        plain = answers(base_of(asked), asked)
        print(json.dumps({"base": plain, "adapter": answers(adapted(asked, asked["adapter"]), asked)}))
        return
    models = {name: adapted(asked, folder) for name, folder in asked["adapters"].items()}
    said = {name: answers(model, asked) for name, model in models.items()}
    print(json.dumps({"answers": said, "logits": {name: logits(model, asked) for name, model in models.items()}}))


def base_of(asked: dict[str, Any]) -> Any:
    """Return the base in full precision."""
    return AutoModelForCausalLM.from_pretrained(asked["model"], dtype=torch.float32)


def adapted(asked: dict[str, Any], folder: str) -> Any:
    """Return the base with an adapter on it."""
    return PeftModel.from_pretrained(base_of(asked), folder).eval()


def answers(model: Any, asked: dict[str, Any]) -> list[str]:
    """Return the greedy continuation of each prompt."""
    tokenizer = AutoTokenizer.from_pretrained(asked["model"])
    texts = []
    for prompt in asked["prompts"]:
        tokens = tokenizer(prompt, return_tensors="pt")
        out = model.generate(**tokens, max_new_tokens=asked["max_tokens"], do_sample=False)
        texts.append(tokenizer.decode(out[0, tokens["input_ids"].shape[1] :], skip_special_tokens=True))
    return texts


def logits(model: Any, asked: dict[str, Any]) -> list[list[float]]:
    """Return what comes after each prompt, as logits."""
    tokenizer = AutoTokenizer.from_pretrained(asked["model"])
    with torch.no_grad():
        return [model(**tokenizer(prompt, return_tensors="pt")).logits[0, -1].tolist() for prompt in asked["prompts"]]


if __name__ == "__main__":
    main()
