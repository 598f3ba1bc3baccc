"""What PEFT makes of adapters: run in the heavy environment, reads `{"model", "prompts", "tokens", "adapters"}`.

Prints a line of JSON for each adapter: `{"name", "refused", "dropped", "answers": [{"tokens", "logprobs"}]}`.
"""

import json
import os
import select
import signal
import sys
import warnings
from collections.abc import Callable
from typing import Any

import peft.peft_model
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

# A regex that never ends, or a pipe that nobody writes into, hangs PEFT for good.
PATIENCE_SECONDS = 20


def main() -> None:
    """Answer the prompts with each adapter in turn."""
    asked = json.load(sys.stdin)
    warnings.filterwarnings("ignore")
    torch.set_num_threads(1)
    tokenizer = AutoTokenizer.from_pretrained(asked["model"])
    base = AutoModelForCausalLM.from_pretrained(asked["model"], dtype=torch.float32)
    base.generation_config.eos_token_id = None  # as with vLLM's ignore_eos
    dropped: list[str] = []
    peft.peft_model.set_peft_model_state_dict = _noting(peft.peft_model.set_peft_model_state_dict, dropped)

    def tell(path: str) -> dict[str, Any]:
        try:
            model = PeftModel.from_pretrained(base, path)
            answers = [_answer(model, tokenizer, prompt, asked["tokens"]) for prompt in asked["prompts"]]
        except Exception as error:  # noqa: BLE001 - whatever PEFT raises is its answer
            return _refused(f"{type(error).__name__}: {error}"[:300])
        return {"refused": None, "dropped": dropped, "answers": answers}

    for name, path in asked["adapters"].items():
        print(json.dumps({"name": name, **_apart(tell, path)}), flush=True)


def _apart(tell: Callable[[str], dict[str, Any]], path: str) -> dict[str, Any]:
    """Ask in a process of its own: loading changes the model, also where it fails, and may never come back."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        with os.fdopen(writing, "w") as out:
            json.dump(tell(path), out)
        os._exit(0)
    os.close(writing)
    said = b""
    try:
        with os.fdopen(reading, "rb") as told:
            if select.select([told], [], [], PATIENCE_SECONDS)[0]:
                said = told.read()
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    result: dict[str, Any] = json.loads(said) if said else _refused("no answer")
    return result


def _refused(sentence: str) -> dict[str, Any]:
    return {"refused": sentence, "dropped": [], "answers": []}


def _answer(model: torch.nn.Module, tokenizer: object, prompt: str, count: int) -> dict[str, object]:
    tokens = tokenizer(prompt, return_tensors="pt")  # type: ignore[operator]
    out = model.generate(
        **tokens, max_new_tokens=count, do_sample=False, return_dict_in_generate=True, output_logits=True
    )
    made = out.sequences[0, tokens["input_ids"].shape[1] :]
    logprobs = [
        float(torch.log_softmax(logits[0].double(), dim=-1)[token])
        for logits, token in zip(out.logits, made, strict=True)
    ]
    return {"tokens": made.tolist(), "logprobs": logprobs}


def _noting(load: Callable[..., Any], dropped: list[str]) -> Callable[..., Any]:
    """Wrap PEFT's loading: it drops tensors that it has no place for without a word, and knows their names here."""

    def loading(*arguments: Any, **options: Any) -> Any:
        result = load(*arguments, **options)
        dropped.extend(result.unexpected_keys)
        return result

    return loading


if __name__ == "__main__":
    main()
