"""What a real vLLM makes of an adapter: it is loaded, asked, and unloaded, and then the others are asked.

One request at a time: on CPU, vLLM answers a base request that shares a batch with an adapter's wrongly. The project's
own remedy for that is left out, and there is one slot, so that every adapter is in the last one: an engine as strangers
run it, at its worst.
"""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from support import real_engine
from support.adapters import BaseShape, make_adapter
from support.judge.rulings import Outcome, Spoken, equal
from support.real_engine import RealEngine

PROMPTS: Final = ("def main", "import os\n", "The first")
TOKENS: Final = 16
NEIGHBOUR: Final = "neighbour"
# An answer takes a second; an engine that hangs takes for ever.
PATIENCE_SECONDS: Final = 45.0
FLAGS: Final = ("--max-loras=1",)
# Log-probabilities make vLLM compile a function, for which the heavy environment has no compiler.
ENVIRONMENT: Final = {"VLLM_PLUGINS": "", "TORCHDYNAMO_DISABLE": "1"}


class NoAnswerError(Exception):
    """The engine hangs, or is gone."""


@dataclass(slots=True, kw_only=True)
class Bench:
    """A real engine with a good adapter in it beside the one that is tried; *is_sound* while nobody was harmed."""

    engine: RealEngine
    base: BaseShape
    is_sound: bool = True
    _expected: dict[str, tuple[Spoken, ...]] = field(default_factory=dict)
    _count: int = 0

    def settle(self, folder: Path) -> None:
        """Load the neighbour, and note what it and the base answer while all is well."""
        targets = tuple(name for name in self.base.linear if name[0] in "qvod")
        strong = make_adapter(base=self.base, seed=7, targets=targets, config={"lora_alpha": 128})
        refused = self._load(NEIGHBOUR, strong.write(folder / NEIGHBOUR))
        if refused is not None:
            raise RuntimeError(f"the neighbour was refused: {refused}")
        for model in (NEIGHBOUR, "base"):
            self._expected[model] = self._ask(model)
        if equal(self._expected["base"], self._expected[NEIGHBOUR]):
            raise RuntimeError("the neighbour answers as the base does: no harm to it would show")

    def try_adapter(self, path: Path) -> Outcome:
        """Load an adapter, ask it, look at the others, unload it, and look at them again."""
        self._count += 1
        name = f"tried-{self._count}"
        refused: str | None = None
        answers: tuple[Spoken, ...] = ()
        try:
            refused = self._load(name, path)
            answers = self._ask(name) if refused is None else ()
            harm = self._harm()
            if refused is None:
                self._call("/v1/unload_lora_adapter", {"lora_name": name})
                harm = harm or self._harm()
        except NoAnswerError as error:
            harm = str(error)
        self.is_sound = harm is None
        return Outcome(refused=refused, answers=answers, harm=harm)

    def _harm(self) -> str | None:
        for model in ("base", NEIGHBOUR):
            if not equal(self._ask(model), self._expected[model]):
                return f"spoils the {model}'s answers"
        return None

    def _load(self, name: str, path: Path) -> str | None:
        status, text = self._call("/v1/load_lora_adapter", {"lora_name": name, "lora_path": str(path)})
        return None if status == 200 else f"{status} {text}"[:300]

    def _ask(self, model: str) -> tuple[Spoken, ...]:
        return tuple(self._complete(model, prompt) for prompt in PROMPTS)

    def _complete(self, model: str, prompt: str) -> Spoken:
        body = {"model": model, "prompt": prompt, "max_tokens": TOKENS, "temperature": 0, "ignore_eos": True}
        status, text = self._call("/v1/completions", body | {"logprobs": 0, "return_tokens_as_token_ids": True})
        if status != 200:
            # Log-probabilities that are not finite are no JSON: vLLM answers 500 then.
            return Spoken((), (), trouble=f"{status} {text}"[:200])
        told = json.loads(text)["choices"][0]["logprobs"]
        tokens = tuple(int(token.removeprefix("token_id:")) for token in told["tokens"])
        return Spoken(tokens, tuple(told["token_logprobs"]))

    def _call(self, path: str, body: dict[str, Any]) -> tuple[int, str]:
        request = urllib.request.Request(
            f"{self.engine.url}{path}", json.dumps(body).encode(), {"Content-Type": "application/json"}
        )
        try:
            with urllib.request.urlopen(request, timeout=PATIENCE_SECONDS) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()
        except TimeoutError as error:
            raise NoAnswerError("hangs") from error
        except (urllib.error.URLError, ConnectionError) as error:
            hangs = isinstance(getattr(error, "reason", None), TimeoutError)
            raise NoAnswerError("hangs" if hangs else "dies") from error


class Engines:
    """Fresh engines, one after the other; the next one starts while the present one is asked."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._spare: RealEngine | None = None
        self.starts = 0

    @contextmanager
    def fresh(self, base: BaseShape, model: Path, *, more: bool = False) -> Iterator[Bench]:
        """Run a new engine over *base* while the context is open; *more* if another like it is wanted after it."""
        engine, self._spare = self._spare or self._launch(model), None
        try:
            engine.wait()
            if more:
                self._spare = self._launch(model)
            bench = Bench(engine=engine, base=base)
            bench.settle(engine.folder)
            yield bench
        finally:
            engine.kill()

    def close(self) -> None:
        """Stop the engine that waits for its turn."""
        if self._spare is not None:
            self._spare.kill()
            self._spare = None

    def _launch(self, model: Path) -> RealEngine:
        self.starts += 1
        folder = self._folder / f"engine-{self.starts}"
        folder.mkdir(parents=True)
        engine = real_engine.prepare(folder, flags=FLAGS, environment=ENVIRONMENT, model=model)
        engine.launch()
        return engine
