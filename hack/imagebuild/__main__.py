"""The command: `python -m imagebuild base|engine|images|constraints|all`, each safe to run again."""

from pathlib import Path

import click

from imagebuild import base, constraints, engine, images, wrappers
from tinymodel import cached as tinymodel

DEFAULT_OUT = engine.REPOSITORY / ".local/images"


@click.group(help=__doc__)
def cli() -> None:
    """Build what the local cluster's pods are made of."""


@cli.command("base")
def base_command() -> None:
    """Make the base root file system, and its image for engine pods."""
    click.echo(base.ensure())
    click.echo(base.image(base.ENGINE_BASE_IMAGE))


@cli.command("engine")
def engine_command() -> None:
    """Make the heavy environment and this checkout's .local/engine/bin/{python,vllm,lora-train}."""
    click.echo(engine.ensure())
    click.echo(wrappers.write())
    click.echo(tinymodel.ensure())


@cli.command("images")
@click.option("--out", default=DEFAULT_OUT, type=click.Path(path_type=Path), help="Where the archives go.")
@click.option("--tag", default=None, help="The images' tag; by default, one that changes with their content.")
@click.option("--full-trainer", is_flag=True, help="Build the trainer with its libraries inside (8 GB), too.")
@click.option("--merger", is_flag=True, help="Build lora-merge's image, too.")
def images_command(out: Path, tag: str | None, full_trainer: bool, merger: bool) -> None:  # noqa: FBT001 - click's way
    """Build the operator's, the agent's and the trainer's images as archives."""
    more = ((images.FULL_TRAINER, full_trainer), (images.MERGER, merger))
    targets = (*images.LOCAL, *(image for image, wanted in more if wanted))
    for archive in images.build_images(out, tag=tag or images.content_tag(), targets=targets).values():
        click.echo(archive)


@cli.command("constraints")
@click.option("--upgrade", is_flag=True, help="Take newer versions where pyproject.toml allows them.")
def constraints_command(upgrade: bool) -> None:  # noqa: FBT001 - click's way
    """Compile every file of constraints/ anew (see its README)."""
    constraints.compile_all(upgrade=upgrade)


@cli.command("all")
@click.pass_context
def all_command(context: click.Context) -> None:
    """Make the base, the heavy environment and the images."""
    for command in (base_command, engine_command, images_command):
        context.invoke(command)


cli(prog_name="python -m imagebuild")
