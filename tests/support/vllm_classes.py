"""What vLLM's own classes take LoRAs on: run in the heavy environment, reads `["LlamaForCausalLM", ...]` from stdin.

Prints, by architecture, `{"lora": true, "embeddings": ["embed_tokens", "lm_head"]}`.
"""

import json
import sys

from vllm.model_executor.models.interfaces import supports_lora
from vllm.model_executor.models.registry import ModelRegistry


def main() -> None:
    """Look each class up, as the engine does."""
    found = {}
    for name in json.load(sys.stdin):
        # Without a class of its own, transformers' is run.
        known = ModelRegistry.models
        model = known.get(name, known["TransformersForCausalLM"]).load_model_cls()
        found[name] = {
            "lora": supports_lora(model),
            "embeddings": sorted(model.embedding_modules) if supports_lora(model) else [],
        }
    print(json.dumps(found))


if __name__ == "__main__":
    main()
