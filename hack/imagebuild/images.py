"""Our images, built from images/*/Dockerfile and kept as archives that ctr, docker and podman take.

An archive is built anew only when what goes into it changes; the default tag says so too, so that a cluster never
takes an old image for a new one.
"""

import tomllib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from imagebuild import base, buildah, engine
from machine import cache, progress

REPOSITORY = engine.REPOSITORY
REGISTRY = "ghcr.io/lora-operator"


@dataclass(frozen=True)
class Image:
    """One image: its Dockerfile, target and constraints, and how long a first build takes."""

    name: str
    constraints: tuple[str, ...]
    target: str = ""
    estimate: str = "1 minute"

    @property
    def dockerfile(self) -> Path:
        """Return where the Dockerfile is, below the repository's root."""
        return Path("images") / self.name / "Dockerfile"


OPERATOR = Image("operator", ("build", "operator"))
AGENT = Image("agent", ("build", "agent"))
THIN_TRAINER = Image("trainer", ("build",), target="thin", estimate="20 s")
MERGER = Image("merger", ("build", "merger"))
FULL_TRAINER = Image("trainer", ("build", "trainer"), target="full", estimate="10 minutes")
# What the local cluster needs: its trainer finds the libraries in the mounted heavy environment.
LOCAL = (OPERATOR, AGENT, THIN_TRAINER)
SOURCES = (
    "operator/lora_operator",
    "operator/lora_inspect",
    "images/agent/lora_agent",
    "images/merger/lora_merger",
    "images/trainer/lora_trainer",
)
PROJECT_FILES = ("LICENSE", "README.md", "pyproject.toml", ".dockerignore")


def build_images(out_dir: Path, *, tag: str, targets: Sequence[Image] = LOCAL) -> dict[str, Path]:
    """Build the images that are not already in `out_dir`; return the archives by the images' full names."""
    out_dir.mkdir(parents=True, exist_ok=True)
    archives = {}
    wanted = []
    for image in targets:
        archive = out_dir / f"{'-'.join(filter(None, (image.name, image.target)))}.tar"
        archives[reference(image, tag=tag)] = archive
        if not _is_current(image, archive, tag=tag):
            wanted.append((image, archive))
    if wanted:
        with buildah.session() as builder:
            for image, archive in wanted:
                _build(builder, image, archive, tag=tag)
    return archives


def reference(image: Image, *, tag: str) -> str:
    """Return an image's full name."""
    return f"{REGISTRY}/{image.name}:{tag}"


def content_tag(targets: Sequence[Image] = LOCAL) -> str:
    """Return a tag that changes whenever one of the images would."""
    version = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]["version"]
    return f"{version}-{cache.digest(*(content_key(image) for image in targets))}"


def content_key(image: Image) -> str:
    """Return what changes when anything that goes into an image does."""
    names = [str(image.dockerfile), *PROJECT_FILES, *(f"constraints/{name}.txt" for name in image.constraints)]
    parts: list[str | bytes] = [base.key(), image.target]
    for file in sorted((*(REPOSITORY / name for name in names), *_sources())):
        parts += [str(file.relative_to(REPOSITORY)), file.read_bytes()]
    return cache.digest(*parts)


def _build(builder: buildah.Builder, image: Image, archive: Path, *, tag: str) -> None:
    name = reference(image, tag=tag)
    # Taken before the build: a file that changes meanwhile makes the archive look old, never new.
    key = _key(image, tag=tag)
    _key_file(archive).unlink(missing_ok=True)
    build = buildah.Build(REPOSITORY, REPOSITORY / image.dockerfile, name, image.target)
    with progress.step(f"building {name}", estimate=image.estimate):
        builder.build(build, archive=archive)
    _key_file(archive).write_text(key)


def _is_current(image: Image, archive: Path, *, tag: str) -> bool:
    key_file = _key_file(archive)
    return archive.exists() and key_file.exists() and key_file.read_text() == _key(image, tag=tag)


def _key(image: Image, *, tag: str) -> str:
    return f"{reference(image, tag=tag)} {content_key(image)}"


def _key_file(archive: Path) -> Path:
    return archive.with_suffix(".key")


def _sources() -> Iterable[Path]:
    for directory in SOURCES:
        for file in (REPOSITORY / directory).rglob("*"):
            if file.is_file() and "__pycache__" not in file.parts:
                yield file
