"""The local cluster from a shell: `python -m localcluster up | down | status`."""

from pathlib import Path

import click

from localcluster import processes
from localcluster.cluster import Cluster, write_env
from machine.progress import console

STATE_DIR = click.option(
    "--state-dir",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path(".local"),
    show_default=True,
    help="Where the cluster keeps everything; several clusters run side by side, one a folder.",
)


@click.group(help="A real Kubernetes on this machine, for development and tests only.")
def main() -> None:
    """Group the commands."""


@main.command()
@STATE_DIR
@click.option("--nodes", default=2, show_default=True, type=click.IntRange(1, 9), help="How many nodes.")
@click.option("--gpus", default=0, show_default=True, type=click.IntRange(0), help="nvidia.com/gpu on each node.")
def up(state_dir: Path, nodes: int, gpus: int) -> None:
    """Start the cluster, or find it running."""
    try:
        Cluster.up(state_dir, nodes=nodes, gpus=gpus)
    except PermissionError as error:
        raise click.ClickException(str(error)) from error
    console.print(f"the cluster is up: [bold]source {write_env(state_dir)}[/] and use kubectl and helm")


@main.command()
@STATE_DIR
def down(state_dir: Path) -> None:
    """Take the cluster down; nothing of it stays but its logs."""
    Cluster.down(state_dir)
    console.print("the cluster is down")


@main.command()
@STATE_DIR
def status(state_dir: Path) -> None:
    """Say whether the cluster runs, and which processes it has."""
    cluster = Cluster.load(state_dir)
    if cluster is None:
        console.print(f"no cluster in {state_dir}")
        raise SystemExit(1)
    healthy = cluster.is_healthy()
    console.print("running" if healthy else "[red]not healthy[/]: run `up` again")
    for found in sorted(processes.find(cluster.plane.cluster), key=lambda found: (found.part, found.pid)):
        console.print(f"  {found.part:26} {found.pid}")
    raise SystemExit(0 if healthy else 1)


if __name__ == "__main__":
    main()
