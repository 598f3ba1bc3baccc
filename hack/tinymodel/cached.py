"""The tiny model from the cache, made by the heavy environment the first time: for the local cluster and for tests."""

from pathlib import Path

from imagebuild import engine
from machine import cache, process, progress
from tinymodel import HIDDEN, SEED


def ensure(*, seed: int = SEED, hidden: int = HIDDEN) -> Path:
    """Return the directory of the model with this seed and size."""
    sources = [Path(__file__).with_name(name).read_bytes() for name in ("model.py", "tokenizing.py")]
    name = f"tinymodel-{cache.digest(engine.key(), *sources, str(seed), str(hidden))}"

    def build(partial: Path) -> None:
        arguments = ["-m", "tinymodel", str(partial), "--seed", str(seed), "--hidden", str(hidden)]
        command = engine.command([str(engine.PYTHON), *arguments], engine=engine.ensure())
        hack = str(engine.REPOSITORY / "hack")
        with progress.step("making a tiny model", estimate="15 s"):
            process.run(command, env={"PYTHONPATH": hack, "LORA_CHECKOUT": str(engine.REPOSITORY)})

    return cache.build_once(name, build)
