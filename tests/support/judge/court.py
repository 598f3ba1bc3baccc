"""The hearing: each case before the library, PEFT and vLLM, in an order that lets no case spoil another's."""

from __future__ import annotations

import contextlib
import json
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from imagebuild import engine as heavy
from lora_operator.adapter import base_from_directory, inspect, open_directory
from support import adapter_corpus
from support.adapter_corpus import CPU, Case
from support.adapters import TINY_LLAMA
from support.judge import engine_side
from support.judge.engine_side import PROMPTS, TOKENS, Bench
from support.judge.rulings import Outcome, Ruling, Spoken
from tinymodel import cached

_TESTS: Final = Path(__file__).parents[2]


def is_askable(case: Case) -> bool:
    """Tell whether the real engine over the tiny model can be asked about a case."""
    return case.askable and case.base == TINY_LLAMA and case.engine == CPU


CASES: Final[tuple[Case, ...]] = tuple(
    sorted(filter(is_askable, adapter_corpus.CASES), key=lambda case: case.poisonous)
)
"""Those that are asked, the poisonous ones last."""


class Court:
    """Holds the engine that harmless cases share, and what PEFT said."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._stack = contextlib.ExitStack()
        self._shared: Bench | None = None
        self._peft: dict[str, Outcome] = {}
        self._paths: dict[str, Path] = {}
        self.engine_starts = 0

    def close(self) -> None:
        """Stop the engine."""
        self._stack.close()
        self._shared = None

    def hear_peft(self, cases: Sequence[Case]) -> None:
        """Write the files of all *cases*, and ask PEFT about them in one process."""
        for number, case in enumerate(cases):
            self._paths[case.name] = case.write(self._folder / f"case-{number}")
        question = {
            "model": str(cached.ensure()),
            "prompts": PROMPTS,
            "tokens": TOKENS,
            "adapters": {name: str(path) for name, path in self._paths.items()},
        }
        script = _TESTS / "support" / "judge" / "peft_side.py"
        command = heavy.command([str(heavy.PYTHON), str(script)], engine=heavy.ensure())
        done = subprocess.run(command, input=json.dumps(question), capture_output=True, text=True, check=False)
        for line in done.stdout.splitlines():
            told = json.loads(line)
            answers = tuple(Spoken(tuple(answer["tokens"]), tuple(answer["logprobs"])) for answer in told["answers"])
            self._peft[told["name"]] = Outcome(refused=told["refused"], answers=answers, dropped=tuple(told["dropped"]))
        if self._peft.keys() != self._paths.keys():
            raise RuntimeError(f"PEFT ended early:\n{done.stderr[-4000:]}")

    def hear(self, case: Case) -> Ruling:
        """Hear one case; a poisonous one gets an engine of its own."""
        path = self._paths[case.name]
        verdict = inspect(open_directory(path), base_from_directory(cached.ensure()), case.engine)
        if case.poisonous:
            self.close()
            with engine_side.fresh(self._folder / "engines") as bench:
                self.engine_starts += 1
                outcome = bench.try_adapter(path)
        else:
            outcome = self._bench().try_adapter(path)
        return Ruling(
            case=case.name,
            servable=verdict.servable,
            codes=tuple(sorted({finding.code.value for finding in verdict.errors})),
            engine=outcome,
            peft=self._peft[case.name],
            why=case.why,
        )

    def _bench(self) -> Bench:
        """Return the shared engine; another one where a case that was thought harmless has spoilt it."""
        if self._shared is None or not self._shared.is_sound:
            self.close()
            self._shared = self._stack.enter_context(engine_side.fresh(self._folder / "engines"))
            self.engine_starts += 1
        return self._shared
