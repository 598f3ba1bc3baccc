"""A base model of random weights: run in the heavy environment, reads its config as JSON, `... <folder>`."""

import json
import sys

import torch
from transformers import AutoConfig, AutoModelForCausalLM


def main() -> None:
    """Make it, the same each time."""
    told = json.load(sys.stdin)
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(**told))
    for name, parameter in model.named_parameters():
        # transformers starts them at zero, where it would not show whether they are added.
        if name.endswith(".bias"):
            torch.nn.init.normal_(parameter, std=0.1)
    model.save_pretrained(sys.argv[1])


if __name__ == "__main__":
    main()
