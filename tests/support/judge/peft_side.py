"""What PEFT makes of adapters: run in the heavy environment, reads `{"model", "prompts", "tokens", "adapters"}`.

Prints a line of JSON for each adapter: `{"name", "refused", "dropped", "answers": [{"tokens", "logprobs"}]}`.
"""

import copy
import json
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
    signal.signal(signal.SIGALRM, _out_of_patience)
    dropped: list[str] = []
    peft.peft_model.set_peft_model_state_dict = _noting(peft.peft_model.set_peft_model_state_dict, dropped)
    for name, path in asked["adapters"].items():
        signal.alarm(PATIENCE_SECONDS)
        dropped.clear()
        try:
            # A copy each: loading puts layers into the model, also where it fails halfway.
            model = PeftModel.from_pretrained(copy.deepcopy(base), path)
            answers = [_answer(model, tokenizer, prompt, asked["tokens"]) for prompt in asked["prompts"]]
            told = {"name": name, "refused": None, "dropped": dropped, "answers": answers}
        except Exception as error:  # noqa: BLE001 - whatever PEFT raises is its answer
            told = {"name": name, "refused": f"{type(error).__name__}: {error}"[:300], "dropped": [], "answers": []}
        finally:
            signal.alarm(0)
        print(json.dumps(told), flush=True)


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


def _out_of_patience(*_: object) -> None:
    raise TimeoutError(f"nothing after {PATIENCE_SECONDS} s")


if __name__ == "__main__":
    main()
