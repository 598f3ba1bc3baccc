"""What the main job plays on: the local cluster with our images, and a Hub with the tiny model, both in one folder."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from imagebuild import base, engine, images, wrappers
from localcluster.cluster import Cluster, write_env
from machine.progress import step
from quickstart import hub
from tinymodel import cached as tinymodel

TINY_MODEL = "acme/tiny-llama"
TOKEN = "hf_write"  # noqa: S105 - the test Hub's own, worth nothing elsewhere


@dataclass(frozen=True, kw_only=True)
class Stage:
    """A running cluster, the Hub's URL as pods and this machine see it, and the tag of our images."""

    state_dir: Path
    cluster: Cluster
    hub_url: str
    tag: str
    environment: Path
    """The heavy environment on this machine and on the nodes; pods mount it at /opt/lora."""

    def kubectl(self, *arguments: str, stdin: str | None = None) -> str:
        """Run kubectl against the cluster; return what it printed."""
        return self.cluster.plane.run_kubectl(*arguments, stdin=stdin)


def up(state_dir: Path, *, nodes: int, gpus: int = 0) -> Stage:
    """Bring everything up, or find it there."""
    environment = engine.ensure()
    wrappers.write()
    model = tinymodel.ensure()
    tag = images.content_tag()
    archives = images.build_images(engine.REPOSITORY / ".local" / "images", tag=tag)
    archives[base.ENGINE_BASE_IMAGE] = base.image(base.ENGINE_BASE_IMAGE)
    cluster = Cluster.up(state_dir, nodes=nodes, gpus=gpus, host_paths=[environment])
    _load(cluster, archives)
    with step("starting the Hub"):
        url = hub.start(state_dir, host=cluster.bridge_ip)
        hub.publish(url, TINY_MODEL, model, token=TOKEN)
    write_env(state_dir, {"HF_ENDPOINT": url, "HF_TOKEN": TOKEN, "HF_HUB_DISABLE_XET": "1"})
    return Stage(state_dir=state_dir, cluster=cluster, hub_url=url, tag=tag, environment=environment)


def down(state_dir: Path) -> None:
    """Take everything down; images and logs stay in the folder."""
    hub.stop(state_dir)
    Cluster.down(state_dir)


def _load(cluster: Cluster, archives: dict[str, Path]) -> None:
    """Import the images that a node has not."""
    listing = ["ctr", "--namespace", "k8s.io", "images", "list", "--quiet"]
    held = set.intersection(*(set(node.exec(listing).split()) for node in cluster.nodes))
    for name, archive in archives.items():
        if name not in held:
            with step(f"loading {name} ({archive.stat().st_size >> 20} MB)"):
                cluster.load_image(archive)
