"""The base: a small Debian root file system with Python, looking like `python:3.11-slim`.

Everything stands on it: our Dockerfiles name it in FROM, the engine's pods run on it, and the heavy environment is
made inside it. Where a registry can be reached nobody needs this: the Dockerfiles are ordinary ones.
"""

import os
import shutil
from pathlib import Path

from machine import cache, debian, ocitar, process, progress

PYTHON_IMAGE = "docker.io/library/python:3.11-slim"
ENGINE_BASE_IMAGE = "registry.local/engine-base:1"
SUITE = "bookworm"
# libnuma1 is all that vLLM and the training libraries need beyond Python itself.
PACKAGES = ("python3", "python3-venv", "ca-certificates", "libnuma1")
RECIPE = 1  # to be raised when what _build does changes its outcome
STRIPPED = (
    "var/cache/apt",
    "var/cache/debconf",
    "var/lib/apt/lists",
    "var/log",
    "usr/share/doc",
    "usr/share/info",
    "usr/share/locale",
    "usr/share/man",
)
# What python:3.11-slim says about itself, as far as a program can notice.
CONFIG = {
    "Env": ["PATH=/usr/local/bin:/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin", "LANG=C.UTF-8"],
    "Cmd": ["python3"],
}


def ensure() -> Path:
    """Return the base's root file system, built by debootstrap the first time."""
    return cache.build_once(f"base-{key()}", _build)


def key() -> str:
    """Return what changes when the base would come out differently."""
    return cache.digest(SUITE, *PACKAGES, *STRIPPED, str(RECIPE))


def image(reference: str) -> Path:
    """Return the base as an OCI archive under the given image name."""
    name = f"image-{cache.digest(reference, key())}.tar"
    root = ensure()

    def pack(partial: Path) -> None:
        with progress.step(f"packing the base as {reference}", estimate="5 s"):
            ocitar.write(partial, reference=reference, root=root, config=CONFIG)

    return cache.build_once(name, pack)


def mirror(sources: Path = Path("/etc/apt")) -> str | None:
    """Return the Debian mirror that this machine's own apt uses; None: debootstrap has one of its own."""
    files = [sources / "sources.list", *sorted(sources.glob("sources.list.d/*"))]
    for file in files:
        if file.suffix in {".list", ".sources"} and file.is_file():
            for word in _words_of_settings(file):
                if word.startswith(("http://", "https://")) and word.rstrip("/").endswith("/debian"):
                    return word.rstrip("/")
    return None


def _words_of_settings(file: Path) -> list[str]:
    return [word for line in file.read_text().splitlines() for word in line.partition("#")[0].split()]


def _build(partial: Path) -> None:
    if os.geteuid() != 0:
        raise PermissionError(
            "making a root file system needs root; without it, build the images with docker or podman from "
            "images/*/Dockerfile, and install the chart on any cluster"
        )
    debian.ensure("debootstrap")
    with progress.step(f"building the base: Debian {SUITE} with Python, by debootstrap", estimate="1 minute"):
        # In a mount namespace of its own, so that no mount of debootstrap's can outlive it.
        process.run(
            [
                *("unshare", "--mount", "--propagation", "private", "debootstrap", "--variant=minbase"),
                *(f"--include={','.join(PACKAGES)}", SUITE, str(partial)),
                *filter(None, [mirror()]),
            ]
        )
        for directory in STRIPPED:
            _empty(partial / directory)
        process.run(["chroot", partial, "/usr/bin/python3", "-m", "venv", "/usr/local"])
        # A container gets these from its runtime; a chroot binds the machine's own over them.
        for file in ("etc/resolv.conf", "etc/hostname", "etc/hosts"):
            (partial / file).write_text("")


def _empty(directory: Path) -> None:
    for entry in directory.iterdir() if directory.is_dir() else ():
        shutil.rmtree(entry) if entry.is_dir() and not entry.is_symlink() else entry.unlink()
