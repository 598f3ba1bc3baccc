"""What PEFT answers: run in the heavy environment, reads `{"model", "adapter", "prompts", "max_tokens"}` from stdin.

Prints `{"base": [...], "adapter": [...]}`: the greedy continuation of each prompt, without and with the adapter.
"""

import json
import sys

import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer


def main() -> None:
    """Answer the prompts."""
    asked = json.load(sys.stdin)
    torch.set_num_threads(1)
    tokenizer = AutoTokenizer.from_pretrained(asked["model"])
    base = AutoModelForCausalLM.from_pretrained(asked["model"], dtype=torch.float32)

    def answers(model: torch.nn.Module) -> list[str]:
        texts = []
        for prompt in asked["prompts"]:
            tokens = tokenizer(prompt, return_tensors="pt")
            out = model.generate(**tokens, max_new_tokens=asked["max_tokens"], do_sample=False)
            texts.append(tokenizer.decode(out[0, tokens["input_ids"].shape[1] :], skip_special_tokens=True))
        return texts

    plain = answers(base)
    print(json.dumps({"base": plain, "adapter": answers(PeftModel.from_pretrained(base, asked["adapter"]))}))


if __name__ == "__main__":
    main()
