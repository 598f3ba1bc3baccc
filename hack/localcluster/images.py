"""Container images without a registry: a root file system becomes an OCI tar that containerd imports.

Holds the images of the cluster's own parts (pause, DNS, volumes), each a static binary or a few of the machine's
programs; they are made once into the cache.
"""

import hashlib
import re
import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from localcluster import parts
from localcluster.node import PAUSE
from localcluster.recipes import recipe_of
from machine import cache, ocitar

COREDNS = "registry.local/coredns:1"
PROVISIONER = "registry.local/local-path-provisioner:1"
SHELL = "registry.local/shell:1"


def pause_image() -> Path:
    """Return the image of what holds a pod's namespaces open."""
    program = parts.pause()
    return _once(program.parent / "image.tar", PAUSE, {"/pause": program}, entrypoint=["/pause"])


def coredns_image() -> Path:
    """Return the image of the cluster's DNS server."""
    return _image_of("coredns", COREDNS)


def provisioner_image() -> Path:
    """Return the image of what makes PersistentVolumeClaims bind."""
    return _image_of("local-path-provisioner", PROVISIONER)


def shell_image() -> Path:
    """Return the image in which the provisioner makes and removes a volume's folder."""
    return program_image(SHELL, ["sh", "mkdir", "rm"])


def program_image(name: str, programs: Sequence[str]) -> Path:
    """Return an image of a few of this machine's own programs, with the libraries that they are linked with."""
    found = {f"/bin/{program}": _program(program) for program in programs}
    libraries = {str(library): library for program in found.values() for library in _libraries(program)}
    files = {**found, **libraries}
    contents = (f"{inside} {file.stat().st_mtime_ns} {file.stat().st_size}" for inside, file in sorted(files.items()))
    stamp = hashlib.sha256("\n".join((name, *contents)).encode()).hexdigest()[:12]
    return _once(cache.root() / f"programs-{stamp}" / "image.tar", name, files, entrypoint=[next(iter(found))])


def _image_of(binary: str, name: str) -> Path:
    program = parts.ensure([binary])[binary]
    out = cache.root() / f"{recipe_of(binary).name}-{recipe_of(binary).key()}" / f"{binary}.tar"
    return _once(out, name, {f"/{binary}": program}, entrypoint=[f"/{binary}"])


def _once(out: Path, name: str, files: Mapping[str, Path], *, entrypoint: Sequence[str]) -> Path:
    """Make an image of a few files unless it is in the cache."""
    if not out.exists():
        out.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=out.parent) as folder:
            for inside, file in files.items():
                target = Path(folder) / inside.lstrip("/")
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(file, target)
            Path(folder, "tmp").mkdir(mode=0o1777)
            config = {"Entrypoint": list(entrypoint), "Env": ["PATH=/bin"]}
            partial = out.with_suffix(".partial")
            ocitar.write(partial, reference=name, root=Path(folder), config=config)
            partial.rename(out)
    return out


def _program(name: str) -> Path:
    path = shutil.which(name)
    if path is None:
        raise FileNotFoundError(f"{name} is not on PATH")
    return Path(path).resolve()


def _libraries(program: Path) -> list[Path]:
    """Return the shared libraries that a program is linked with, its loader among them."""
    told = subprocess.run(["ldd", str(program)], capture_output=True, text=True, check=False).stdout
    return [Path(match) for match in re.findall(r"(?:=> |^\s*)(/\S+) \(0x", told, flags=re.MULTILINE)]
