"""Debian's buildah as a builder that leaves nothing behind: its own storage in the cache, no bridge, no registry.

The Dockerfiles are ordinary ones; what is particular to this machine (where packages come from, whom to trust) is
bound into the build and never becomes part of a layer.
"""

import contextlib
import os
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from imagebuild import base
from machine import cache, debian, process

STORAGE_LIMIT_BYTES = 12 * 1024**3
CA_BUNDLE = "/etc/ssl/certs/ca-certificates.crt"
# What decides where pip finds packages; the rest of a person's settings is their own affair.
PIP_SETTINGS = ("index-url", "extra-index-url", "trusted-host", "proxy", "timeout", "default-timeout")


@dataclass(frozen=True)
class Build:
    """One image: a Dockerfile of the repository, perhaps one of its targets, and the name it gets."""

    context: Path
    dockerfile: Path
    reference: str
    target: str = ""


class Builder:
    """A buildah that has the base under its name; hold `session()` while using it."""

    def __init__(self, storage: Path) -> None:
        self._storage = storage

    def build(self, build: Build, *, archive: Path) -> None:
        """Build an image and write it as a Docker archive, whose layers are not compressed: that would cost 10 s."""
        target = ("--target", build.target) if build.target else ()
        with tempfile.TemporaryDirectory() as lent:
            self._run(
                *("bud", "--isolation", "chroot", "--network", "host", "--pull-never", "--layers", "--quiet"),
                *_volumes(Path(lent)),
                *target,
                *("--file", build.dockerfile, "--tag", build.reference, build.context),
            )
        cache.discard(archive)
        self._run("push", "--quiet", build.reference, f"docker-archive:{archive}:{build.reference}")

    def clear(self) -> None:
        """Remove the working containers that a killed build left."""
        self._run("rm", "--all")

    def provide_base(self) -> None:
        """Import the base under the name that Dockerfiles say, unless this very base is there."""
        marker = self._storage / f"base-{base.key()}"
        if marker.exists():
            return
        archive = base.image(base.PYTHON_IMAGE)
        image = self._run("pull", "--quiet", f"oci-archive:{archive}").strip()
        self._run("tag", image, base.PYTHON_IMAGE)
        cache.discard(archive)
        marker.touch()

    def _run(self, *arguments: str | Path) -> str:
        storage = ("--root", self._storage / "store", "--runroot", self._storage / "run")
        return process.run(["buildah", *storage, *arguments], env={"STORAGE_DRIVER": "overlay"})


@contextlib.contextmanager
def session() -> Iterator[Builder]:
    """Give a builder to one process at a time; its layers stay cached until they fill the limit."""
    debian.ensure("buildah")
    storage = cache.root() / "buildah"
    with cache.locked("buildah"):
        if storage.exists() and _size(storage) > STORAGE_LIMIT_BYTES:
            cache.discard(storage)
        storage.mkdir(exist_ok=True)
        builder = Builder(storage)
        builder.clear()
        builder.provide_base()
        yield builder


def pip_config(listing: str, *, ca_bundle: str) -> str:
    """Return a pip.conf with the machine's settings, from the lines of `pip config list`; its environment wins."""
    settings: dict[str, str] = {}
    for line in sorted(listing.splitlines(), key=lambda line: line.startswith(":env:")):
        key, _, value = line.partition("=")
        name = key.rpartition(".")[2]
        if name in PIP_SETTINGS:
            settings[name] = shlex.split(value)[0] if value else ""
    lines = [f"{name.removeprefix('default-')} = {value}" for name, value in settings.items()]
    return "\n".join(["[global]", f"cert = {ca_bundle}", *lines, ""])


def ca_bundle(environment: Mapping[str, str]) -> Path | None:
    """Return the file of certificates that this machine trusts."""
    named = (environment.get(name) for name in ("PIP_CERT", "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE"))
    return next((Path(path) for path in (*named, CA_BUNDLE) if path and Path(path).is_file()), None)


def _volumes(lent: Path) -> list[str]:
    """Return the options that lend the machine's certificates and pip settings to the build's steps."""
    listing = subprocess.run(
        [sys.executable, "-m", "pip", "config", "list"], capture_output=True, text=True, check=False
    )
    config = lent / "pip.conf"
    config.write_text(pip_config(listing.stdout, ca_bundle=CA_BUNDLE))
    volumes = ["--volume", f"{config}:/etc/pip.conf:ro"]
    bundle = ca_bundle(os.environ)
    return volumes if bundle is None else [*volumes, "--volume", f"{bundle}:{CA_BUNDLE}:ro"]


def _size(directory: Path) -> int:
    used = subprocess.run(
        ["du", "--summarize", "--bytes", directory], capture_output=True, text=True, check=False
    ).stdout
    return int(used.split()[0]) if used else 0
