"""`python -m quickstart up | run | down`: what `make cluster`, `make quickstart` and `make down` call."""

from __future__ import annotations

import time
from pathlib import Path

import click

from machine.progress import console
from quickstart import stage, story

STATE_DIR = click.option(
    "--state-dir",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path(".local"),
    show_default=True,
    help="Where the cluster keeps everything.",
)
NODES = click.option("--nodes", default=1, show_default=True, type=click.IntRange(1, 9), help="How many nodes.")


@click.group(help="The main job on one machine: train, publish, serve, ask.")
def main() -> None:
    """Group the commands."""


@main.command()
@STATE_DIR
@NODES
@click.option("--gpus", default=0, show_default=True, type=click.IntRange(0), help="nvidia.com/gpu on each node.")
def up(state_dir: Path, nodes: int, gpus: int) -> None:
    """Start the local cluster and the Hub, with our images loaded."""
    ready = _stage(state_dir, nodes=nodes, gpus=gpus)
    console.print(f"the cluster is up: [bold]source {ready.state_dir / 'env'}[/] and use kubectl and helm")


@main.command()
@STATE_DIR
@NODES
@click.option("--once", is_flag=True, help="Take everything down at the end.")
def run(state_dir: Path, nodes: int, *, once: bool) -> None:
    """Do the main job."""
    began = time.monotonic()
    try:
        story.tell(_stage(state_dir, nodes=nodes, gpus=0))
        console.print(f"[green]the whole loop took {time.monotonic() - began:.0f} s[/]")
        if not once:
            console.print("the cluster stays up until [bold]make down[/]")
    finally:
        if once:
            stage.down(state_dir)
            console.print("the cluster is down")


@main.command()
@STATE_DIR
def down(state_dir: Path) -> None:
    """Stop the cluster and the Hub; nothing of them stays but images and logs."""
    stage.down(state_dir)
    console.print("the cluster is down")


def _stage(state_dir: Path, *, nodes: int, gpus: int) -> stage.Stage:
    try:
        return stage.up(state_dir, nodes=nodes, gpus=gpus)
    except PermissionError as error:
        raise click.ClickException(str(error)) from error


if __name__ == "__main__":
    main()
