"""The command: `.local/engine/bin/python -m tinymodel OUT_DIR`."""

from pathlib import Path

import click

from tinymodel import HIDDEN, SEED, model


@click.command()
@click.argument("out_dir", type=click.Path(file_okay=False, path_type=Path))
@click.option("--seed", default=SEED, show_default=True, help="Weights are equal for equal seeds.")
@click.option("--hidden", default=HIDDEN, show_default=True, help="Hidden size; a multiple of 32.")
def main(out_dir: Path, seed: int, hidden: int) -> None:
    """Make a tiny Llama-style model, its tokenizer and its chat template in OUT_DIR."""
    model.make(out_dir, seed=seed, hidden=hidden)


main()
