"""The hearing: each case before the library, PEFT and vLLM, in an order that lets no case spoil another's."""

from __future__ import annotations

import contextlib
import hashlib
import json
import stat
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from imagebuild import engine as heavy
from lora_operator.adapter import base_from_directory, inspect, open_directory
from support import adapter_corpus
from support.adapter_corpus import CPU, Case
from support.adapters import TINY_LLAMA, BaseShape
from support.judge import bases
from support.judge.bases import BASES
from support.judge.copied import COPIED
from support.judge.engine_side import PROMPTS, TOKENS, Bench, Engines
from support.judge.rulings import Outcome, Ruling, Spoken

_TESTS: Final = Path(__file__).parents[2]


def is_askable(case: Case) -> bool:
    """Tell whether the real engine over the tiny model can be asked about a case."""
    return case.askable and case.base in BASES and case.engine == CPU


CASES: Final[tuple[Case, ...]] = tuple(
    sorted(
        (*COPIED, *filter(is_askable, adapter_corpus.CASES)), key=lambda case: (case.poisonous, BASES.index(case.base))
    )
)
"""Those that are asked, one base after the other, the poisonous ones last."""


def content_of(folder: Path, base: BaseShape = TINY_LLAMA) -> str:
    """Return a hash of *base* and of all that is in *folder*: names, and bytes or what stands in their place."""
    parts = hashlib.sha256(f"{base.model_type}\n".encode())
    for path in sorted(folder.iterdir()):
        kind = stat.S_IFMT(path.lstat().st_mode)
        data = str(path.readlink()).encode() if path.is_symlink() else path.read_bytes() if path.is_file() else b""
        parts.update(f"{path.name} {kind} {len(data)}\n".encode() + data)
    return parts.hexdigest()


class Court:
    """Holds the engine that harmless cases share, and what PEFT said.

    *known* and *known_of_peft* are what vLLM and PEFT made of an adapter in an earlier run, by its content: they are
    not asked about that again.
    """

    def __init__(
        self,
        folder: Path,
        known: Mapping[str, Outcome] | None = None,
        known_of_peft: Mapping[str, Outcome] | None = None,
    ) -> None:
        self._folder = folder
        self._known = known or {}
        self._known_of_peft = known_of_peft or {}
        self._stack = contextlib.ExitStack()
        self._shared: Bench | None = None
        self._shared_base: BaseShape | None = None
        self._models: dict[BaseShape, Path] = {}
        self._engines = Engines(folder / "engines")
        self._poisonous_to_come = 0
        self._peft: dict[str, Outcome] = {}
        self._paths: dict[str, Path] = {}

    @property
    def engine_starts(self) -> int:
        """How often a vLLM was started."""
        return self._engines.starts

    def close(self) -> None:
        """Stop the engines."""
        self._close_shared()
        self._engines.close()

    def hear_peft(self, cases: Sequence[Case]) -> None:
        """Write the files of all *cases*, and ask PEFT about them in one process."""
        for number, case in enumerate(cases):
            path = self._paths[case.name] = case.write(self._folder / f"case-{number}")
            if (known := self._known_of_peft.get(content_of(path, case.base))) is not None:
                self._peft[case.name] = known
            self._poisonous_to_come += case.poisonous and content_of(path, case.base) not in self._known
        for base in dict.fromkeys(case.base for case in cases):
            unknown = {case.name: str(self._paths[case.name]) for case in cases if case.base == base}
            unknown = {name: path for name, path in unknown.items() if name not in self._peft}
            if unknown:
                self._ask_peft(base, unknown)

    def _model(self, base: BaseShape) -> Path:
        if base not in self._models:
            self._models[base] = bases.make(base, self._folder / "bases")
        return self._models[base]

    def _ask_peft(self, base: BaseShape, adapters: dict[str, str]) -> None:
        question = {
            "model": str(self._model(base)),
            "prompts": PROMPTS,
            "tokens": TOKENS,
            "adapters": adapters,
        }
        script = _TESTS / "support" / "judge" / "peft_side.py"
        command = heavy.command([str(heavy.PYTHON), str(script)], engine=heavy.ensure())
        done = subprocess.run(command, input=json.dumps(question), capture_output=True, text=True, check=False)
        for line in done.stdout.splitlines():
            told = json.loads(line)
            answers = tuple(Spoken(tuple(answer["tokens"]), tuple(answer["logprobs"])) for answer in told["answers"])
            self._peft[told["name"]] = Outcome(refused=told["refused"], answers=answers, dropped=tuple(told["dropped"]))
        if not adapters.keys() <= self._peft.keys():
            raise RuntimeError(f"PEFT ended early:\n{done.stderr[-4000:]}")

    def hear(self, case: Case) -> Ruling:
        """Hear one case; a poisonous one gets an engine of its own."""
        path = self._paths[case.name]
        base = base_from_directory(self._model(case.base))
        verdict = inspect(open_directory(path, stored=base.stored if base else None), base, case.engine)
        content = content_of(path, case.base)
        outcome = self._known.get(content) or self._ask_engine(case, path)
        return Ruling(
            case=case.name,
            content=content,
            servable=verdict.servable,
            codes=tuple(sorted({finding.code.value for finding in verdict.errors})),
            engine=outcome,
            peft=self._peft[case.name],
            why=case.why,
        )

    def _ask_engine(self, case: Case, path: Path) -> Outcome:
        if not case.poisonous:
            return self._bench(case.base).try_adapter(path)
        self._close_shared()
        self._poisonous_to_come -= 1
        with self._engines.fresh(case.base, self._model(case.base), more=self._poisonous_to_come > 0) as bench:
            return bench.try_adapter(path)

    def _bench(self, base: BaseShape) -> Bench:
        """Return the shared engine; another one where a case that was thought harmless has spoilt it."""
        if self._shared is None or not self._shared.is_sound or self._shared_base != base:
            self._close_shared()
            self._shared_base = base
            self._shared = self._stack.enter_context(self._engines.fresh(base, self._model(base)))
        return self._shared

    def _close_shared(self) -> None:
        self._stack.close()
        self._shared = None
